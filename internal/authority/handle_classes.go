package authority

import (
	"encoding/json"
	"net/http"
	"regexp"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/store"
)

// className is what a TrustClass may be called in a cluster.
var className = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// maxClasses bounds the classes that AIAS keeps.
const maxClasses = 1000

func (a *Authority) getClasses(w http.ResponseWriter, r *http.Request, _ identity) error {
	classes, err := a.store.Classes(r.Context())
	if err != nil {
		return err
	}
	out := protocol.ClassList{Classes: make([]protocol.Class, len(classes))}
	for i := range classes {
		out.Classes[i] = classView(&classes[i])
	}
	return answer(w, out)
}

func classView(c *store.Class) protocol.Class {
	return protocol.Class{Name: c.Name, Conditions: c.Conditions, Set: c.Set, By: c.By}
}

func (a *Authority) putClass(w http.ResponseWriter, r *http.Request, id identity) error {
	var req protocol.Class
	if err := decode(w, r, &req); err != nil {
		return err
	}
	name := r.PathValue("class")
	if !className.MatchString(name) || req.Name != "" && req.Name != name {
		return refuse(http.StatusBadRequest, "class", "this is no name of a trust class", clip(name, 60), "use up to 40 lower case letters, digits and '-'")
	}
	c := store.Class{Name: name, Set: a.now(), By: id.name}
	var err error
	if c.Conditions, err = conditions(req.Conditions); err != nil {
		return err
	}
	if have, err := a.store.Classes(r.Context()); err != nil {
		return err
	} else if len(have) >= maxClasses {
		return refuse(http.StatusConflict, "class", "there are too many trust classes", "", "remove some: touchstone class delete NAME")
	}
	if err := a.store.PutClass(r.Context(), c, a.act(id, "class.set", name, string(c.Conditions))); err != nil {
		return err
	}
	a.log.Info("trust class set", "class", name, "conditions", string(c.Conditions), "by", id.name)
	return answer(w, classView(&c))
}

func (a *Authority) deleteClass(w http.ResponseWriter, r *http.Request, id identity) error {
	name := r.PathValue("class")
	err := a.store.DeleteClass(r.Context(), name, a.act(id, "class.delete", name, ""))
	if notFound(err) {
		return noClass(name)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func noClass(name string) error {
	return refuse(http.StatusNotFound, "no-class", "AIAS knows no trust class "+clip(name, 60), "",
		"see `touchstone class list`; in a cluster the controller brings each TrustClass to AIAS, else use `touchstone class set`")
}

// conditions checks conditions strictly and returns them as they are kept. What cannot be read is never taken for "no conditions".
func conditions(raw json.RawMessage) ([]byte, error) {
	c, err := release.Parse(raw)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "conditions", "these are no conditions of a release", err.Error(),
			"use levels, warnings, softwareTPM, maxResultAge and tags, as a TrustClass has them")
	}
	return json.Marshal(c)
}
