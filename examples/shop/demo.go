package main

import (
	"context"
	"flag"
	"os"

	"github.com/chancery-mesh/chancery/examples/shop/demo"
	"github.com/chancery-mesh/chancery/internal/rig"
)

func runDemo(ctx context.Context, flags *flag.FlagSet, args []string) error {
	registry := flags.String("registry", "file", "where services are registered: file or consul")
	chancery := flags.String("chancery", "", "the program that is tried (default $CHANCERY, or the one on PATH)")
	keep := flags.Bool("keep", false, "leave the shop running until Ctrl-C, and say what to try")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *chancery != "" {
		if err := os.Setenv("CHANCERY", *chancery); err != nil {
			return err
		}
	}
	programs, err := rig.FindPrograms(*registry == "consul")
	if err != nil {
		return err
	}
	if programs.Shop, err = os.Executable(); err != nil {
		return err
	}
	return demo.Run(ctx, demo.Config{
		Programs: programs, Registry: *registry, Keep: *keep, Out: os.Stdout, Colour: isTerminal(os.Stdout),
	})
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
