package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

func newPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "password",
		Short: "Hash a password for a Users document",
		Long: `Password reads a password and prints its hash (argon2id), for the users of a
Users document. On a terminal it asks for it twice, and shows nothing; otherwise
it reads standard input, without the line break at its end. A password is never
an argument: other users of the host could see it.

It must be text in Unicode's normalization form C, which is what keyboards and
browsers make of it: at log-in passwords are compared byte for byte.`,
		Example: `  chancery password
  pass show mesh/alice | chancery password`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 { // cobra's own error would repeat it
				return errors.New("a password is never an argument: change it")
			}
			return nil
		},
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			hash, err := credential.HashPassword(password)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), hash)
			return err
		}),
	}
}

// readPassword asks people twice, and programs once.
func readPassword(in io.Reader, prompt io.Writer) (string, error) {
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return askPassword(file, prompt)
	}
	const limit = 4 << 10 // far beyond any password, which HashPassword bounds
	text, err := io.ReadAll(io.LimitReader(in, limit))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	if len(text) == 0 {
		return "", errors.New("no password on standard input")
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

func askPassword(terminal *os.File, prompt io.Writer) (string, error) {
	var typed [2]string
	for i, question := range []string{"Password: ", "Once more: "} {
		fmt.Fprint(prompt, question)
		text, err := term.ReadPassword(int(terminal.Fd()))
		fmt.Fprintln(prompt)
		if err != nil {
			return "", fmt.Errorf("read password: %w", err)
		}
		typed[i] = string(text)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ")
	}
	return typed[0], nil
}
