package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"kwai/internal/testing/cluster"
)

// NATS is a NATS server with JetStream in a process of its own. It keeps its
// address and its streams when it is started again.
type NATS struct {
	*cluster.Server
	URL string // nats://USER:PASSWORD@HOST:PORT
}

// natsConfig has default settings but for where and for whom the server is there.
// The second address tells that it is ready.
const natsConfig = `server_name: kwai
listen: %q
http: %q
authorization { user: kwai, password: %q }
jetstream { store_dir: %q }
`

// StartNATS builds nats-server, of the version that kwai is tested with, and
// starts it; all that it has is in the folder, which it makes. The caller stops
// it. Within this process, as package cluster has it, it would be measured as the
// client.
func StartNATS(ctx context.Context, folder string) (*NATS, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	program := filepath.Join(folder, "nats-server")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/nats-io/nats-server/v2") //nolint:gosec // a folder of its own
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	address, err := cluster.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	health, err := cluster.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	config := filepath.Join(folder, "nats.conf") // a command line would show the password
	text := fmt.Sprintf(natsConfig, address, health, password, filepath.Join(folder, "streams"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s, err := cluster.StartServer(ctx, cluster.Command{
		Program: program, Args: []string{"--config", config}, Env: os.Environ(), Address: health, Ready: "/healthz",
	})
	if err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	return &NATS{s, "nats://kwai:" + password + "@" + address}, nil
}
