// Package admission is what the API server itself enforces of trust classes: admission policies in CEL, all with failurePolicy Fail, and the
// validating webhook's registration.
//
// Objects returns all of it from one Options; the Helm chart ships its YAML, and the controller writes the table and the webhook's certificate. Nothing
// is made per class. The
// policies are fixed, and what differs between classes stands in one parameter, the TrustAdmission "cluster" (see Table): a lookup in it that
// finds no class refuses. Policies made for each class would let a pod of a new class pass until its policy is compiled in every API server;
// TrustClasses as parameters by selector would too, since a selector that does not find the class evaluates nothing. With one
// table the window is closed: the class is known with all of its rules or not at all.
//
// A pod's class is its label touchstone.dev/trust-class, or that of its namespace. Pods without a class in namespaces without one meet no policy:
// selectors, which cost nothing, tell them apart. What is missing refuses pods with a class: the table or its CRD (parameters
// are required), a mutating policy (the validating ones demand what it adds), a validating policy (the webhook asks whether all are there), and
// the webhook's server. Who deletes the webhook's registration takes its checks away; that is a right of cluster administrators alone.
package admission
