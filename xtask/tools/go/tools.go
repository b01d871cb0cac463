//go:build tools

// Package tools pins the two programs that the project's tests and demo run.
//
// It is never compiled: it exists so that `go mod tidy` keeps their modules in
// go.mod and their checksums in go.sum. xtask builds them from here with
// `go build -mod=readonly`, which refuses anything that go.sum does not name.
//
// To move to a newer version: `go get <module>@<version> && go mod tidy`, then
// the version constants in xtask/src/tools/recipe.rs.
package tools

import (
	_ "github.com/nats-io/nats-server/v2"
	_ "github.com/nats-io/natscli/nats"
)
