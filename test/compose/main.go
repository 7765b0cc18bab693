// Loads a compose file by Compose's own library, strictly, and prints what it
// understood as JSON. A module of its own: kwai needs none of this.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv)
	if err == nil {
		project, loading := options.LoadProject(context.Background())
		if err = loading; err == nil {
			text, marshalling := project.MarshalJSON()
			fmt.Println(string(text))
			err = marshalling
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
