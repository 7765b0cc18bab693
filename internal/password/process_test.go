package password_test

import (
	"os"
	"testing"

	"kwai/internal/password"
)

func TestMain(m *testing.M) {
	password.RunWorker()
	os.Exit(m.Run())
}

// A worker's process ends with the server, however that ends.
func TestWorkerEndsWithItsInput(t *testing.T) {
	t.Parallel()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.StartProcess(program, []string{"kwai: password worker"}, &os.ProcAttr{Files: []*os.File{in, nil, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	state, err := process.Wait()
	if err != nil || !state.Success() {
		t.Error(state, err)
	}
}
