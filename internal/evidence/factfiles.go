package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// factNames are the facts that are single files; those of efivars/ come by prefix.
var factNames = []string{
	FactLockdown, FactTainted, FactSigEnforce, FactCommandLine, FactModules, FactVersion, FactMEIStatus, FactMSRBootGrd, FactAssetTag, FactMachine,
	FactBootID, FactKubeletKeys, FactVolumes,
}

// readFacts reads the facts of a folder, or of a JSON file with an object of strings (an asset tag may be an object itself). Files of
// other names are left alone: people keep logs in the same folder.
func readFacts(name string) (map[string][]byte, error) {
	if name == "" {
		return nil, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return readFactsJSON(name)
	}
	facts := map[string][]byte{}
	for _, fact := range factNames {
		if err := addFactFile(facts, fact, filepath.Join(name, fact)); err != nil {
			return nil, err
		}
	}
	vars, err := os.ReadDir(filepath.Join(name, strings.TrimSuffix(FactEFIPrefix, "/")))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, v := range vars {
		if !wantedVariable(v.Name()) || len(facts) >= MaxFacts {
			continue
		}
		if err := addFactFile(facts, FactEFIPrefix+v.Name(), filepath.Join(name, FactEFIPrefix, v.Name())); err != nil {
			return nil, err
		}
	}
	return facts, nil
}

// addFactFile adds a file that may be absent.
func addFactFile(facts map[string][]byte, fact, path string) error {
	b, err := readFile(path, MaxFact)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fact %s: %w", fact, err)
	}
	facts[fact] = b
	return nil
}

func readFactsJSON(name string) (map[string][]byte, error) {
	b, err := readFile(name, MaxFactsSize)
	if err != nil {
		return nil, err
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("facts %s: want a folder or a JSON object: %w", name, err)
	}
	facts := map[string][]byte{}
	for k, v := range raw {
		var s string
		if json.Unmarshal(v, &s) == nil {
			facts[k] = []byte(s)
		} else {
			facts[k] = bytes.TrimSpace(v) // asset_tag as an object, tainted as a number
		}
	}
	return facts, nil
}
