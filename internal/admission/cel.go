package admission

import (
	"regexp"
	"strings"

	arv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// suffix ends the names of our policies.
const suffix = ".touchstone.dev"

// names are replaced in expressions, so that these read as the API does.
var names = strings.NewReplacer(
	"CLASS_LABEL", quote(v1alpha1.ClassLabel),
	"NODE_LABELS", quote(v1alpha1.NodeLabelPrefix),
	"CLASS_NODE_LABEL", quote(v1alpha1.ClassNodeLabelPrefix),
	"UNTRUSTED_TAINT", quote(v1alpha1.UntrustedTaint),
	"TRUSTED_CONDITION", quote(v1alpha1.TrustedCondition),
	"USE", quote(v1alpha1.UseVerb),
)

var lineBreak = regexp.MustCompile(`\s*\n\s*`)

// expression writes an expression out, in one line.
func expression(s string) string { return lineBreak.ReplaceAllString(names.Replace(s), " ") }

func quote(s string) string { return "'" + s + "'" }

// list writes plain names as a CEL list.
func list(items []string) string { return "['" + strings.Join(items, "', '") + "']" }

// check is one demand: an expression that must be true, and what is said when it is not. Say is an expression when it begins with a quote.
type check struct{ want, say string }

// variable is a named expression.
type variable struct{ name, is string }

// rule says what requests a policy is about.
type rule struct {
	group      string
	versions   []string // default v1
	resources  []string
	operations []arv1.OperationType
}

func (r rule) named() arv1.NamedRuleWithOperations {
	versions := r.versions
	if versions == nil {
		versions = []string{"v1"}
	}
	return arv1.NamedRuleWithOperations{RuleWithOperations: arv1.RuleWithOperations{
		Operations: r.operations,
		Rule:       arv1.Rule{APIGroups: []string{r.group}, APIVersions: versions, Resources: r.resources, Scope: new(arv1.AllScopes)},
	}}
}

// policy is a validating or mutating policy before it is written out, with its only binding.
type policy struct {
	name      string
	about     string // one line for who reads the object
	rules     []rule
	object    bool // only objects with the class label
	namespace bool // only in namespaces with the class label
	table     bool // the TrustAdmission is its parameter
	aid       bool // enforces nothing: without it, or without the table, what is made is not changed
	when      []variable
	variables []variable
	checks    []check
	patch     string // of a mutating policy: an expression that gives a list of JSONPatch
}

// withClass selects what has the class label.
func withClass() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: v1alpha1.ClassLabel, Operator: metav1.LabelSelectorOpExists}}}
}

func selector(limited bool) *metav1.LabelSelector {
	if limited {
		return withClass()
	}
	return &metav1.LabelSelector{}
}

func (p *policy) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:   p.name + suffix,
		Labels: map[string]string{"app.kubernetes.io/name": "touchstone", "app.kubernetes.io/component": "admission"}, Annotations: map[string]string{"touchstone.dev/about": p.about},
	}
}

func (p *policy) constraints() *arv1.MatchResources {
	m := &arv1.MatchResources{NamespaceSelector: selector(p.namespace), ObjectSelector: selector(p.object), MatchPolicy: new(arv1.Equivalent)}
	for _, r := range p.rules {
		m.ResourceRules = append(m.ResourceRules, r.named())
	}
	return m
}

func (p *policy) paramKind() *arv1.ParamKind {
	if !p.table {
		return nil
	}
	return &arv1.ParamKind{APIVersion: v1alpha1.GroupVersion.String(), Kind: "TrustAdmission"}
}

func (p *policy) paramRef() *arv1.ParamRef {
	if !p.table {
		return nil
	}
	missing := arv1.DenyAction
	if p.aid {
		missing = arv1.AllowAction
	}
	return &arv1.ParamRef{Name: v1alpha1.AdmissionName, ParameterNotFoundAction: &missing}
}

func (p *policy) failure() *arv1.FailurePolicyType {
	if p.aid {
		return new(arv1.Ignore)
	}
	return new(arv1.Fail)
}

func (p *policy) conditions() []arv1.MatchCondition {
	var out []arv1.MatchCondition
	for _, w := range p.when {
		out = append(out, arv1.MatchCondition{Name: w.name, Expression: expression(w.is)})
	}
	return out
}

func (p *policy) vars() []arv1.Variable {
	var out []arv1.Variable
	for _, v := range p.variables {
		out = append(out, arv1.Variable{Name: v.name, Expression: expression(v.is)})
	}
	return out
}

// validating writes p as a validating policy and its binding.
func (p *policy) validating() (*arv1.ValidatingAdmissionPolicy, *arv1.ValidatingAdmissionPolicyBinding) {
	v := &arv1.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: arv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: p.meta(),
		Spec: arv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: p.failure(), ParamKind: p.paramKind(), MatchConstraints: p.constraints(), MatchConditions: p.conditions(), Variables: p.vars(),
		},
	}
	for _, c := range p.checks {
		validation := arv1.Validation{Expression: expression(c.want), Reason: new(metav1.StatusReasonForbidden)}
		if strings.HasPrefix(c.say, "'") {
			validation.MessageExpression = expression(c.say)
		} else {
			validation.Message = c.say
		}
		v.Spec.Validations = append(v.Spec.Validations, validation)
	}
	return v, &arv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: arv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicyBinding"},
		ObjectMeta: p.meta(),
		Spec: arv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: v.Name, ParamRef: p.paramRef(), ValidationActions: []arv1.ValidationAction{arv1.Deny, arv1.Audit},
		},
	}
}

// mutating writes p as a mutating policy and its binding.
func (p *policy) mutating() (*arv1.MutatingAdmissionPolicy, *arv1.MutatingAdmissionPolicyBinding) {
	m := &arv1.MutatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: arv1.SchemeGroupVersion.String(), Kind: "MutatingAdmissionPolicy"},
		ObjectMeta: p.meta(),
		Spec: arv1.MutatingAdmissionPolicySpec{
			FailurePolicy: p.failure(), ParamKind: p.paramKind(), MatchConstraints: p.constraints(), MatchConditions: p.conditions(), Variables: p.vars(),
			Mutations: []arv1.Mutation{{
				PatchType: arv1.PatchTypeJSONPatch, JSONPatch: &arv1.JSONPatch{Expression: expression(p.patch)},
			}},
			ReinvocationPolicy: arv1.IfNeededReinvocationPolicy,
		},
	}
	return m, &arv1.MutatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: arv1.SchemeGroupVersion.String(), Kind: "MutatingAdmissionPolicyBinding"},
		ObjectMeta: p.meta(),
		Spec:       arv1.MutatingAdmissionPolicyBindingSpec{PolicyName: m.Name, ParamRef: p.paramRef()},
	}
}
