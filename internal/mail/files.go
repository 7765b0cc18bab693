package mail

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	gomail "github.com/wneessen/go-mail"

	"kwai/internal/folder"
)

// Files writes each message as an .eml file into a folder. kwai uses it if no mail
// server is set. Any mail program opens the files. They hold working reset links and
// are readable by their owner only. Nothing removes them.
type Files struct {
	identity
	dir string
}

// NewFiles returns a sender that writes into dir; MakeFolder makes it.
func NewFiles(dir string, o Options) (*Files, error) {
	id, err := o.identity()
	if err != nil {
		return nil, err
	}
	return &Files{id, dir}, nil
}

// Folder is where the files are.
func (f *Files) Folder() string { return f.dir }

// MakeFolder makes the folder, if it isn't there.
func (f *Files) MakeFolder() error { return folder.MakeFolder(f.dir) }

// Send writes m to a file whose name begins with its date, so that names sort
// by time. When it returns nil the file is complete and on disk; no reader ever
// sees half of one.
func (f *Files) Send(ctx context.Context, m Message) error {
	l, err := f.envelope(m, gomail.NoEncoding) // a file takes any byte
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return &failure{what: "not written: " + err.Error(), cause: err}
	}
	name := l.date.Format("20060102T150405.000000Z") + "-" + m.ID + ".eml"
	if err := folder.WriteFile(filepath.Join(f.dir, name), l.data); err != nil {
		return &failure{what: "write a mail: " + err.Error()}
	}
	return nil
}

// Names lists the files of the folder, the newest mail first.
func (f *Files) Names() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("mail: list mail: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && isMailName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Reverse(names)
	return names, nil
}

// Read returns the mail in the named file, one of those that Names lists. The
// error is fs.ErrNotExist for any other name.
func (f *Files) Read(name string) (Message, error) {
	if !isMailName(name) {
		return Message{}, fmt.Errorf("mail: read mail: %w", os.ErrNotExist)
	}
	file, err := os.Open(filepath.Join(f.dir, name))
	if err != nil {
		return Message{}, fmt.Errorf("mail: read mail: %w", err)
	}
	defer file.Close()
	return Parse(file)
}

// isMailName keeps readers of the folder inside it, and off unfinished files.
func isMailName(name string) bool {
	return strings.HasSuffix(name, ".eml") && !strings.HasPrefix(name, ".") && filepath.Base(name) == name
}
