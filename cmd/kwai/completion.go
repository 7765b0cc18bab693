package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (completionCmd) Help() string {
	return `For this shell alone: source <(kwai completion bash), the same for zsh, or kwai completion fish | source. ` +
		`For good: the line in ~/.bashrc or ~/.zshrc (behind compinit), or the output in ~/.config/fish/completions/kwai.fish.`
}

// Each shell asks the program itself, by a command line that begins with this, for
// what may stand in the place of its last word.
const completeWord = "--complete"

var completions = map[string]string{
	"bash": `_kwai() { mapfile -t COMPREPLY < <(kwai ` + completeWord + ` "${COMP_WORDS[@]:1:COMP_CWORD}"); }
complete -o default -F _kwai kwai
`,
	"zsh": `_kwai() { local -a found; found=("${(@f)$(kwai ` + completeWord + ` "${(@)words[2,CURRENT]}")}"); compadd -a found || _files; }
compdef _kwai kwai
`,
	"fish": `complete -c kwai -a '(kwai ` + completeWord + ` (commandline -opc)[2..] (commandline -ct))'
`,
}

func (cmd completionCmd) Run(c console) error {
	_, err := fmt.Fprint(c.out, completions[cmd.Shell])
	return err
}

// complete prints what begins as the last word does: commands, or flags.
func complete(out io.Writer, root *kong.Node, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	node := root
	for _, word := range words[:len(words)-1] {
		at := slices.IndexFunc(node.Children, func(child *kong.Node) bool { return child.Name == word })
		if at >= 0 {
			node = node.Children[at]
		}
	}
	var found []string
	for _, child := range node.Children {
		found = append(found, child.Name)
	}
	if strings.HasPrefix(last, "-") {
		for _, flags := range node.AllFlags(false) {
			for _, flag := range flags {
				found = append(found, "--"+flag.Name)
			}
		}
	}
	slices.Sort(found)
	for _, text := range found {
		if strings.HasPrefix(text, last) {
			fmt.Fprintln(out, text)
		}
	}
}
