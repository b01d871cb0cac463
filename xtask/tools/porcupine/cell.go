package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"os"

	"github.com/anishathalye/porcupine"
)

// A call as its caller wrote it down.
type call struct {
	Client   uint32  `json:"client"`
	Key      string  `json:"key"`
	Op       string  `json:"op"`
	Value    uint64  `json:"value"`
	Expected uint64  `json:"expected"`
	Invoked  uint64  `json:"invoked_us"`
	Ended    uint64  `json:"ended_us"`
	Outcome  string  `json:"outcome"`
	Register *uint64 `json:"register"`
	Length   *uint64 `json:"length"`
	Digest   *uint64 `json:"digest"`
}

// What a cell holds. Two lists of one length and one digest are the same list.
type held struct {
	register, length, digest uint64
}

func (h held) appended(value uint64) held {
	hash := fnv.New64a()
	var bytes [16]byte
	binary.LittleEndian.PutUint64(bytes[:8], h.digest)
	binary.LittleEndian.PutUint64(bytes[8:], value)
	hash.Write(bytes[:])
	return held{h.register, h.length + 1, hash.Sum64()}
}

func (h held) written(value uint64) held {
	return held{value, h.length, h.digest}
}

// Whether an answer says this, if it says anything.
func says(answer *uint64, is uint64) bool {
	return answer == nil || *answer == is
}

func step(state, input, output any) (bool, any) {
	is, asked, answer := state.(held), input.(call), output.(call)
	ok := answer.Outcome == "ok"
	switch asked.Op {
	case "append":
		next := is.appended(asked.Value)
		return !ok || says(answer.Length, next.length), next
	case "set":
		return true, is.written(asked.Value)
	case "cas":
		if answer.Outcome == "refused" {
			return is.register != asked.Expected && says(answer.Register, is.register), is
		}
		if is.register == asked.Expected {
			return true, is.written(asked.Value)
		}
		// Nobody knows what became of it: it may have been refused.
		return !ok, is
	case "get":
		shown := says(answer.Register, is.register) && says(answer.Length, is.length)
		return shown && says(answer.Digest, is.digest), is
	}
	return false, is
}

var cell = porcupine.Model{
	Init: func() any { return held{} },
	Step: step,
	DescribeOperation: func(input, output any) string {
		asked, answer := input.(call), output.(call)
		text := fmt.Sprintf("%s %d", asked.Op, asked.Value)
		if asked.Op == "cas" {
			text = fmt.Sprintf("cas %d to %d", asked.Expected, asked.Value)
		}
		for _, part := range []struct {
			name string
			is   *uint64
		}{{"register", answer.Register}, {"length", answer.Length}} {
			if part.is != nil {
				text += fmt.Sprintf(" %s %d", part.name, *part.is)
			}
		}
		return text + " " + answer.Outcome
	},
	DescribeState: func(state any) string {
		is := state.(held)
		return fmt.Sprintf("register %d, length %d, digest %x", is.register, is.length, is.digest)
	},
}

// Reads the calls, key by key. What was certainly not run is left out, and so is a read that showed nothing; what
// nobody knows the fate of stays open to the end.
func read(path string) (map[string][]porcupine.Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	keys := map[string][]porcupine.Operation{}
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		var made call
		if err := json.Unmarshal(lines.Bytes(), &made); err != nil {
			return nil, fmt.Errorf("line %d of %s: %w", number, path, err)
		}
		switch made.Outcome {
		case "ok", "refused":
		case "failed":
			continue
		case "info":
			if made.Op == "get" {
				continue
			}
			made.Ended = math.MaxInt64
		default:
			return nil, fmt.Errorf("line %d of %s: the outcome is %q", number, path, made.Outcome)
		}
		keys[made.Key] = append(keys[made.Key], porcupine.Operation{
			ClientId: int(made.Client % 1_000),
			Input:    made,
			Call:     int64(made.Invoked),
			Output:   made,
			Return:   int64(min(made.Ended, math.MaxInt64)),
		})
	}
	return keys, lines.Err()
}
