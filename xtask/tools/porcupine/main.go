// greenroom-porcupine says whether a history of calls is linearizable, key by key.
//
//	greenroom-porcupine --visual DIR history.jsonl
//
// It reads what the callers of cargo xtask faults wrote down and prints one JSON object:
// {"ok":true,"keys":{"r1-0":"ok"},"operations":1234}. A key is "ok", "illegal", or "unknown" if its search took too
// long. For each that is not ok a picture is written to DIR. It exits with 0 if all are ok, with 1 otherwise, and
// with 2 if it cannot judge.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/anishathalye/porcupine"
)

// Goes up with every change of this program, so that an older one is not used in its place.
const version = "1.0.0"

type verdict struct {
	OK         bool              `json:"ok"`
	Operations int               `json:"operations"`
	Keys       map[string]string `json:"keys"`
	Pictures   []string          `json:"pictures,omitempty"`
}

func main() {
	visual := flag.String("visual", "", "the directory for pictures of what is not linearizable")
	patience := flag.Duration("timeout", time.Minute, "how long the search may take for each key")
	shown := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *shown {
		fmt.Println("greenroom-porcupine", version)
		return
	}
	if flag.NArg() != 1 {
		fail(fmt.Errorf("give one file of calls, one JSON object a line"))
	}
	keys, err := read(flag.Arg(0))
	if err != nil {
		fail(err)
	}
	judged := verdict{OK: true, Keys: map[string]string{}}
	for key, operations := range keys {
		result, info := porcupine.CheckOperationsVerbose(cell, operations, *patience)
		judged.Operations += len(operations)
		judged.Keys[key] = map[porcupine.CheckResult]string{
			porcupine.Ok: "ok", porcupine.Illegal: "illegal", porcupine.Unknown: "unknown",
		}[result]
		if result == porcupine.Ok {
			continue
		}
		judged.OK = false
		if *visual == "" {
			continue
		}
		picture := filepath.Join(*visual, key+".html")
		if err := porcupine.VisualizePath(cell, info, picture); err != nil {
			fail(err)
		}
		judged.Pictures = append(judged.Pictures, picture)
	}
	if err := json.NewEncoder(os.Stdout).Encode(judged); err != nil {
		fail(err)
	}
	if !judged.OK {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "greenroom-porcupine:", err)
	os.Exit(2)
}
