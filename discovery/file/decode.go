package file

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/mesh"
)

const maxWeight = 65535

// Validate returns every fault in the files of path, as Run would log them.
func Validate(path string, networks discovery.Networks) error {
	_, err := read(path, networks)
	return err
}

// read returns what the files of path say together, or every fault in them.
func read(path string, networks discovery.Networks) (map[string][]discovery.Instance, error) {
	all, err := files(path)
	if err != nil {
		return nil, err
	}
	d := decoder{networks: networks, services: map[string][]discovery.Instance{}}
	for _, file := range all {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		d.file = filepath.Base(file)
		d.decode(data)
	}
	if len(d.faults) > 0 {
		return nil, d.faults
	}
	for _, instances := range d.services {
		slices.SortFunc(instances, discovery.ByID)
	}
	return d.services, nil
}

// files lists what to read for path, sorted.
func files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		name := e.Name()
		if ext := filepath.Ext(name); (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(name, ".") {
			all = append(all, filepath.Join(path, name))
		}
	}
	return all, nil
}

// decoder gathers the services of several files, and their faults.
type decoder struct {
	networks discovery.Networks
	file     string
	services map[string][]discovery.Instance
	faults   mesh.Faults
}

func (d *decoder) fault(line, column int, path, message string) {
	d.faults = append(d.faults, mesh.Fault{
		Position: mesh.Position{File: d.file, Line: line, Column: column},
		Path:     path, Message: message,
	})
}

func (d *decoder) faultAt(n *yaml.Node, path, message string) {
	d.fault(n.Line, n.Column, path, message)
}

func (d *decoder) decode(data []byte) {
	var document yaml.Node
	if err := yaml.Load(data, &document); err != nil {
		if e, ok := errors.AsType[*yaml.LoadError](err); ok {
			d.fault(e.Mark.Line, e.Mark.Column, "", e.Message)
			return
		}
		d.fault(0, 0, "", err.Error())
		return
	}
	root := document.Content[0]
	found := false
	d.mapping(root, "", func(key, value *yaml.Node) {
		if key.Value != "services" {
			d.faultAt(key, key.Value, `is no key here: there is "services"`)
			return
		}
		found = true
		d.mapping(value, "services", d.service)
	})
	if root.Kind == yaml.MappingNode && !found {
		d.faultAt(root, "services", `is required: write "services: {}" for none`)
	}
}

// mapping calls each for every key and value of n.
func (d *decoder) mapping(n *yaml.Node, path string, each func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.faultAt(n, path, "is no mapping: write keys, each with its value")
		return
	}
	seen := map[string]bool{}
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		if seen[key.Value] {
			d.faultAt(key, path, fmt.Sprintf("has key %q twice: remove one", key.Value))
		}
		seen[key.Value] = true
		each(key, value)
	}
}

func (d *decoder) service(key, list *yaml.Node) {
	name, path := key.Value, "services."+key.Value
	if !discovery.ValidName(name) {
		d.faultAt(key, path, "is no service name: write at most 63 lower-case letters, digits and hyphens")
	}
	if list.Kind != yaml.SequenceNode {
		d.faultAt(list, path, "is no list: write [] for no instance")
		return
	}
	for n, item := range list.Content {
		path := fmt.Sprintf("%s[%d]", path, n)
		i := d.instance(item, path)
		twin := func(other discovery.Instance) bool { return i.ID != "" && other.ID == i.ID }
		if slices.ContainsFunc(d.services[name], twin) {
			d.faultAt(item, path, fmt.Sprintf("has the ID %q of another instance: write an id of its own", i.ID))
		}
		d.services[name] = append(d.services[name], i)
	}
}

func (d *decoder) instance(n *yaml.Node, path string) discovery.Instance {
	i := discovery.Instance{Weight: 1, Health: discovery.Passing}
	found := false
	d.mapping(n, path, func(key, value *yaml.Node) {
		var err error
		switch key.Value {
		case "id":
			i.ID, err = text(value)
		case "address":
			found = true
			i.Address, err = d.address(value)
		case "mesh":
			i.Mesh, err = d.address(value)
		case "weight":
			i.Weight, err = weight(value)
		default:
			d.faultAt(key, path+"."+key.Value, "is no key here: there are id, address, mesh, weight")
		}
		if err != nil {
			d.faultAt(value, path+"."+key.Value, err.Error())
		}
	})
	if n.Kind == yaml.MappingNode && !found {
		d.faultAt(n, path+".address", "is required: write where the service listens, as 10.0.0.5:8080")
	}
	if i.ID == "" && i.Address.IsValid() {
		i.ID = i.Address.String()
	}
	return i
}

func text(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		return "", errors.New("is no text")
	}
	return n.Value, nil
}

func (d *decoder) address(n *yaml.Node) (netip.AddrPort, error) {
	s, err := text(n)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no IP address with a port: write it as 10.0.0.5:8080", s)
	}
	return d.networks.Parse(ap.Addr().String(), int(ap.Port()))
}

func weight(n *yaml.Node) (uint32, error) {
	w, err := strconv.ParseUint(n.Value, 10, 32)
	if err != nil || w < 1 || w > maxWeight {
		return 0, fmt.Errorf("%q is no weight: write a number from 1 to %d", n.Value, maxWeight)
	}
	return uint32(w), nil
}
