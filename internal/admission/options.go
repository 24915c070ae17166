package admission

import (
	"errors"
	"fmt"
	"regexp"
)

// Options are what differs between installations. The zero value of a field is its default.
type Options struct {
	// Namespace of the controller. Default: touchstone.
	Namespace string
	// ServiceAccount of the controller in Namespace: the only user that may write node labels, taints and objects of ours. Default:
	// trust-controller.
	ServiceAccount string
	// Service in Namespace that leads to the webhook, on port 443. Default: trust-controller.
	Service string
	// Schedulers are the users that may bind pods to nodes. Default: DefaultSchedulers.
	Schedulers []string
	// CABundle is the PEM of the CA that signs the webhook's certificate. The controller fills it in; an empty one makes every call fail, which
	// refuses.
	CABundle []byte
}

// DefaultSchedulers is the user of the stock scheduler.
var DefaultSchedulers = []string{"system:kube-scheduler"}

func (o Options) withDefaults() Options {
	for field, value := range map[*string]string{&o.Namespace: "touchstone", &o.ServiceAccount: "trust-controller", &o.Service: "trust-controller"} {
		if *field == "" {
			*field = value
		}
	}
	if len(o.Schedulers) == 0 {
		o.Schedulers = DefaultSchedulers
	}
	return o
}

// plainUser are names of users that stand in an expression as they are.
var plainUser = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9:._@]{0,252}$`)

// Validate refuses what could not stand in an expression.
func (o Options) Validate() error {
	o = o.withDefaults()
	var errs []error
	for _, s := range append([]string{o.Controller()}, o.Schedulers...) {
		if !plainUser.MatchString(s) {
			errs = append(errs, fmt.Errorf("user name %q: want letters, digits and -:._@ only", s))
		}
	}
	return errors.Join(errs...)
}

// Controller is the user name of the controller.
func (o Options) Controller() string {
	o = o.withDefaults()
	return "system:serviceaccount:" + o.Namespace + ":" + o.ServiceAccount
}

// ServiceName is the name of the webhook's Service and its namespace, as the API server asks for it: NAME.NAMESPACE.
func (o Options) ServiceName() string {
	o = o.withDefaults()
	return o.Service + "." + o.Namespace
}
