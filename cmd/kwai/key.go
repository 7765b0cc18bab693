package main

import (
	"fmt"

	"kwai/internal/token"
)

type keyCmd struct {
	New keyNewCmd `cmd:"" help:"Print a new master key: a line for --master-key-file."`
}

type keyNewCmd struct{}

func (keyNewCmd) Run(c console) error {
	_, err := fmt.Fprintln(c.out, token.NewMasterKey())
	return err
}
