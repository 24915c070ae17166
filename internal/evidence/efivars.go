package evidence

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Namespaces of the variables that are read (UEFI, 3.3; shim).
const (
	globalGUID   = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	securityGUID = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	shimGUID     = "605dab50-e046-4300-abb6-3dd810dd8b23"
)

// variables are those that are expected: their absence is noted.
var variables = []string{
	"SecureBoot-" + globalGUID, "SetupMode-" + globalGUID, "PK-" + globalGUID, "KEK-" + globalGUID,
	"db-" + securityGUID, "dbx-" + securityGUID,
}

// optional are those that only some firmware, or a boot by shim, has.
var optional = []string{
	"AuditMode-" + globalGUID, "DeployedMode-" + globalGUID, "dbt-" + securityGUID, "dbr-" + securityGUID, "SbatLevelRT-" + shimGUID,
}

// wantedVariable reports whether a variable is one that appraisal looks at. Others stay on the worker: some hold passwords.
func wantedVariable(name string) bool {
	for _, v := range append(variables[:len(variables):len(variables)], optional...) {
		if name == v {
			return true
		}
	}
	// What shim mirrors: MokListRT, MokListXRT, MokSBStateRT ..., and MokListRT1 and on where a list is too long for one variable.
	mok, ok := strings.CutSuffix(name, "-"+shimGUID)
	return ok && strings.HasPrefix(mok, "Mok") && strings.HasSuffix(strings.TrimRight(mok, "0123456789"), "RT")
}

// readVariables reads the Secure Boot variables from efivarfs, each with its four bytes of attributes.
func (h *HostLogs) readVariables(root string) error {
	entries, err := os.ReadDir(filepath.Join("/", root, efivarsPath))
	if err != nil {
		h.absent(strings.TrimSuffix(FactEFIPrefix, "/"), efivarsPath, errors.New(reason(err)+" (not booted by UEFI, or efivarfs not mounted)"))
		return nil
	}
	for _, e := range entries {
		if wantedVariable(e.Name()) {
			if err := h.fact(root, FactEFIPrefix+e.Name(), efivarsPath+"/"+e.Name()); err != nil {
				return err
			}
		}
	}
	for _, v := range variables {
		name := FactEFIPrefix + v
		if _, ok := h.Facts[name]; !ok && !h.noted(name) {
			h.absent(name, efivarsPath+"/"+v, os.ErrNotExist)
		}
	}
	return nil
}

// noted reports whether the absence of a fact is listed already.
func (h *HostLogs) noted(name string) bool {
	for _, a := range h.Absent {
		if a.Name == name {
			return true
		}
	}
	return false
}
