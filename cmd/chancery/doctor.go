package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/doctor"
)

// doctorFlags are the flags of `chancery doctor`.
type doctorFlags struct {
	adminFlags
	dirs   []string
	consul bool
}

func newDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what undermines the mesh",
		Long: `Doctor looks for what undermines a mesh that otherwise seems well: services that
this host reaches past their sidecars, sidecars that let in whoever comes, files
that others can read, clocks that are apart, certificates that are not renewed, a
Consul that cannot be reached or lets anybody register as anything.

It exits with 1 if there is a problem. Run it where an attacker could be, too:
what is reachable differs from host to host.`,
		Example: `  chancery doctor
  chancery doctor --dir /var/lib/chancery/control-plane --dir /run/chancery --consul
  chancery doctor -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&f.dirs, "dir", nil, "state and run directories whose owners and modes to look at")
	cmd.Flags().BoolVar(&f.consul, "consul", false, "look at the Consul that CONSUL_HTTP_ADDR and its like name")
	return cmd
}

func (f *doctorFlags) run(cmd *cobra.Command) error {
	found, services, err := f.mesh(cmd.Context())
	if err != nil {
		return f.fault(err, "chancery status")
	}
	for _, dir := range f.dirs {
		found = append(found, doctor.Files(dir)...)
	}
	if f.consul {
		found = append(found, doctor.Consul(cmd.Context(), services)...)
	}
	if f.output == "json" {
		err = writeJSON(cmd.OutOrStdout(), append([]doctor.Finding{}, found...))
	} else {
		writeFindings(cmd.OutOrStdout(), found)
	}
	return errors.Join(err, problems(found))
}

// mesh asks the control plane, and tries the instances that it tells of.
func (f *doctorFlags) mesh(ctx context.Context) (found []doctor.Finding, services []string, err error) {
	client := f.client()
	status, err := client.Status(ctx)
	if err != nil {
		return nil, nil, err
	}
	proxies, err := client.Proxies(ctx)
	if err != nil {
		return nil, nil, err
	}
	told, err := client.Instances(ctx)
	if err != nil {
		return nil, nil, err
	}
	instances, faults := doctor.Instances(told)
	for _, s := range status.Services {
		services = append(services, s.Name)
	}
	found = slices.Concat(doctor.Mesh(status, proxies), doctor.Absent(status, proxies, instances), faults)
	return append(found, doctor.Reach(ctx, instances)...), services, nil
}

func writeFindings(w io.Writer, found []doctor.Finding) {
	if len(found) == 0 {
		fmt.Fprintln(w, "nothing found")
	}
	for _, f := range found {
		fmt.Fprintf(w, "%s: %s %s\n    %s\n", f.Severity, f.Where, f.What, f.Mend)
	}
}

// problems is an error if there is one among the findings.
func problems(found []doctor.Finding) error {
	n := 0
	for _, f := range found {
		if f.Severity == doctor.Problem {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("one problem")
	}
	return fmt.Errorf("%d problems", n)
}
