package pgcluster

import "os"

// Find is how the programs are found.
var Find = find

// Process is the server's first process, the postmaster.
func (c *Cluster) Process() *os.Process { return c.server.cmd.Process }

// Dir is the cluster's folder.
func (c *Cluster) Dir() string { return c.dir }
