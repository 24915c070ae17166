package admission

import arv1 "k8s.io/api/admissionregistration/v1"

// Expressions that several policies share.
const (
	// ownClass is the class that an object names by its label.
	ownClass = `object.metadata.?labels[?CLASS_LABEL].orValue('')`
	// namespaceClass is the class that all pods of the namespace have.
	namespaceClass = `namespaceObject.metadata.?labels[?CLASS_LABEL].orValue('')`
	// mayUse asks RBAC, at cluster scope only: a role of a namespace, wildcards in it included, gives no class away.
	mayUse = `.group('touchstone.dev').resource('trustclasses').name(variables.class).check(USE).allowed()`
	// ours are tolerations that would hold off our taint, whatever their effect: an empty key tolerates all.
	ours = `(!has(t.key) || t.key == '' || t.key == UNTRUSTED_TAINT)`
	// timed is a toleration of NoExecute that ends with the class's grace; lasting are those that a class which leaves levels out has besides.
	timed = `t.?operator.orValue('') == 'Exists' && t.?effect.orValue('') == 'NoExecute' && has(t.tolerationSeconds) &&
		t.tolerationSeconds <= variables.rules.graceSeconds`
	lasting = `t.?operator.orValue('') == 'Exists' && t.?effect.orValue('') == 'NoSchedule' && size(variables.untrusted) > 0 ||
		t.?operator.orValue('') == 'Equal' && t.?effect.orValue('') == 'NoExecute' && t.?value.orValue('') in variables.untrusted`
	// pinned tells whether an image is named by its digest.
	pinned = `i.matches('^[^@]+@sha256:[0-9a-f]{64}$')`
	// fromRegistry tells whether an image name lies below one of the prefixes. A prefix ends where a part of the name ends: "registry.example" is
	// not met by "registry.example.evil", by another port of the same host, nor by an image of that name in the default registry.
	fromRegistry = `variables.rules.registries.exists(r, i.startsWith(r) && (r.endsWith('/') || i.substring(size(r)).startsWith('/') ||
		r.contains('/') && i.substring(size(r)).matches('^([:@]|$)')))`
)

// podImages lists the images of a pod in a variable: containers of all kinds and image volumes.
func podImages(name, object string) variable {
	return variable{name, object + `.spec.containers.map(c, c.?image.orValue('')) +
		` + object + `.spec.?initContainers.orValue([]).map(c, c.?image.orValue('')) +
		` + object + `.spec.?ephemeralContainers.orValue([]).map(c, c.?image.orValue('')) +
		` + object + `.spec.?volumes.orValue([]).filter(v, has(v.image)).map(v, v.image.?reference.orValue(''))`}
}

// imageChecks demand of variables.images what variables.rules says of images.
var imageChecks = []check{
	{
		`variables.rules.digests != 'Required' || variables.images.all(i, ` + pinned + `)`,
		`'trust class ' + variables.class + ' wants each image named by its digest (name@sha256:...); not so: ' + variables.images.filter(i, !` + pinned + `).join(', ')`,
	},
	{
		`size(variables.rules.?registries.orValue([])) == 0 || variables.images.all(i, ` + fromRegistry + `)`,
		`'trust class ' + variables.class + ' wants images from ' + variables.rules.registries.join(', ') + '; not so: ' + variables.images.filter(i, !` + fromRegistry + `).join(', ')`,
	},
}

// known demands that the class is in the table. It comes first: without it the rules of the others have no meaning.
var known = check{`variables.known`, `'there is no TrustClass "' + variables.class + '", or the trust-controller has not read it yet'`}

// rules are the table's entry of variables.class. Where there is none they are the strictest, so that no later check passes by error.
var rules = []variable{
	{"known", `params.?classes[?variables.class].hasValue()`},
	{"rules", `params.classes[variables.class]`},
}

// podClass is what a pod of a class is turned into and what is demanded of it when it is made.
func podClass() []policy {
	create := []rule{{resources: []string{"pods"}, operations: []arv1.OperationType{arv1.Create}}}
	mutate := policy{
		rules: create, table: true,
		variables: []variable{
			{"own", ownClass},
			{"class", `variables.own != '' ? variables.own : ` + namespaceClass},
			{"known", `params.?classes[?variables.class].hasValue()`},
			{"selector", `CLASS_NODE_LABEL + variables.class`},
			{"tolerated", `object.spec.?tolerations.orValue([]).filter(t, has(t.key) && t.key == UNTRUSTED_TAINT).map(t, t.?effect.orValue(''))`},
			untrusted,
		},
		patch: classPatch,
	}
	byLabel, byNamespace := mutate, mutate
	byLabel.name, byLabel.object = "class-of-pods", true
	byLabel.about = "a pod that names a class may only run on nodes that meet it, and leaves them when they fall"
	byNamespace.name, byNamespace.namespace = "class-of-namespaces", true
	byNamespace.about = "a pod in a namespace with a class has that class"
	return []policy{byLabel, byNamespace}
}

// untrusted are the values of the taint with which a node may still meet the class.
var untrusted = variable{"untrusted", `params.?classes[?variables.class].?untrusted.orValue([])`}

// classPatch adds what is missing: the class label, the node selector, the tolerations, and where images are encrypted a pull at each start. Each pod of a class stays on a node that falls for the
// class's grace. One of a class that leaves levels out also runs where only those fail: Kubernetes takes the first toleration that fits the
// taint, so the one that ends comes last.
const classPatch = `!variables.known ? [] :
	(variables.own != '' ? [] : has(object.metadata.labels)
		? [JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey(CLASS_LABEL), value: variables.class}]
		: [JSONPatch{op: 'add', path: '/metadata/labels', value: {CLASS_LABEL: variables.class}}]) +
	(has(object.spec.nodeSelector)
		? [JSONPatch{op: 'add', path: '/spec/nodeSelector/' + jsonpatch.escapeKey(variables.selector), value: 'true'}]
		: [JSONPatch{op: 'add', path: '/spec/nodeSelector', value: {variables.selector: 'true'}}]) +
	(has(object.spec.tolerations) ? [] : [JSONPatch{op: 'add', path: '/spec/tolerations', value: []}]) +
	(size(variables.untrusted) == 0 || variables.tolerated.exists(e, e == 'NoSchedule') ? [] : [JSONPatch{op: 'add', path: '/spec/tolerations/-',
		value: Object.spec.tolerations{key: UNTRUSTED_TAINT, operator: 'Exists', effect: 'NoSchedule'}}]) +
	(variables.tolerated.exists(e, e != 'NoSchedule') ? [] : variables.untrusted.map(v, JSONPatch{op: 'add', path: '/spec/tolerations/-',
			value: Object.spec.tolerations{key: UNTRUSTED_TAINT, operator: 'Equal', value: v, effect: 'NoExecute'}}) +
		[JSONPatch{op: 'add', path: '/spec/tolerations/-', value: Object.spec.tolerations{
			key: UNTRUSTED_TAINT, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: int(params.classes[variables.class].graceSeconds)}}])` + pullPatch

// podPolicies are the validating policies about pods.
func podPolicies() []policy {
	return []policy{newPods(), namespacePods(), livingPods(), ephemeralContainers()}
}

func newPods() policy {
	p := policy{
		name: "pods", about: "who may run pods of a class, where, and with which images",
		rules:  []rule{{resources: []string{"pods"}, operations: []arv1.OperationType{arv1.Create}}},
		object: true, table: true,
		variables: append([]variable{
			{"class", ownClass},
			{"account", `object.spec.?serviceAccountName.orValue('') == '' ? 'default' : object.spec.serviceAccountName`},
			{"level", `{'privileged': 0, 'baseline': 1, 'restricted': 2}`},
			{"enforced", `namespaceObject.metadata.?labels[?'pod-security.kubernetes.io/enforce'].orValue('privileged')`},
			{"version", `namespaceObject.metadata.?labels[?'pod-security.kubernetes.io/enforce-version'].orValue('latest')`},
			untrusted,
		}, append(rules, podImages("images", "object"))...),
	}
	p.checks = append([]check{
		known,
		{
			`!('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))`,
			"static pods cannot have a trust class: the kubelet runs them without asking anybody; make it a pod, a DaemonSet or a Deployment",
		},
		{`authorizer` + mayUse, `'user ' + request.userInfo.username + ' may not use trust class ' + variables.class + ': it needs the verb "use" on trustclasses ' + variables.class + ' by a ClusterRoleBinding'`},
		{
			`authorizer.serviceAccount(request.namespace, variables.account)` + mayUse,
			`'service account ' + request.namespace + '/' + variables.account + ' may not use trust class ' + variables.class + ': it needs the verb "use" on trustclasses ' + variables.class + ' by a ClusterRoleBinding'`,
		},
		{`object.spec.?nodeName.orValue('') == ''`, "pods with a trust class are placed by the scheduler: remove spec.nodeName"},
		{
			`object.spec.?nodeSelector[?CLASS_NODE_LABEL + variables.class].orValue('') == 'true'`,
			"the node selector of the trust class is missing: is the MutatingAdmissionPolicy class-of-pods" + suffix + " there with its binding?",
		},
		{
			`object.spec.?tolerations.orValue([]).all(t, !` + ours + ` || has(t.key) && t.key == UNTRUSTED_TAINT && (` + timed + ` || ` + lasting + `))`,
			"pods with a trust class must not tolerate the taint of untrusted nodes: name the keys in spec.tolerations, and leave out " + "touchstone.dev/untrusted, which is added with the grace of the class",
		},
		{
			`variables.level[?variables.enforced].orValue(0) >= variables.level[variables.rules.podSecurity] &&
				(variables.rules.podSecurity == 'privileged' || variables.version == 'latest' || variables.version.matches('^v1[.](2[5-9]|[3-9][0-9]|[1-9][0-9][0-9])$'))`,
			`'trust class ' + variables.class + ' wants Pod Security ' + variables.rules.podSecurity + ' or stricter, the namespace enforces ' + variables.enforced + ' (' + variables.version + '): kubectl label namespace ' + request.namespace + ' pod-security.kubernetes.io/enforce=' + variables.rules.podSecurity + ' pod-security.kubernetes.io/enforce-version=latest'`,
		},
		pullCheck(podPulls),
	}, imageChecks...)
	return p
}

// namespacePods holds the class of the namespace against that of the pod, also when the mutating policy is gone.
func namespacePods() policy {
	return policy{
		name: "pods-of-namespaces", about: "all pods of a namespace with a class have that class",
		rules:     []rule{{resources: []string{"pods"}, operations: []arv1.OperationType{arv1.Create}}},
		namespace: true,
		checks: []check{{
			ownClass + ` == ` + namespaceClass,
			`'all pods of namespace ' + request.namespace + ' have the trust class ' + ` + namespaceClass + ` + ', by its label; this one has "' + ` + ownClass + ` + '"'`,
		}},
	}
}

// livingPods keeps what was decided when the pod was made. It has no parameters: a missing table must not keep kubelets from their pods' status.
func livingPods() policy {
	return policy{
		name: "living-pods", about: "a pod keeps its class, its node selector and its images, and gains no toleration of our taint",
		rules: []rule{{
			resources:  []string{"pods", "pods/status", "pods/resize", "pods/ephemeralcontainers"},
			operations: []arv1.OperationType{arv1.Update},
		}},
		object: true,
		variables: []variable{
			{"class", `oldObject.metadata.?labels[?CLASS_LABEL].orValue('')`},
			{"selector", `CLASS_NODE_LABEL + variables.class`},
			containerImages("images", "object"), containerImages("oldImages", "oldObject"),
		},
		checks: []check{
			{ownClass + ` == variables.class`, "the trust class of a pod is decided when it is made: make a new pod"},
			{
				`object.spec.?nodeSelector[?variables.selector].orValue('') == oldObject.spec.?nodeSelector[?variables.selector].orValue('')`,
				"the node selector of the trust class cannot be changed",
			},
			{`variables.images == variables.oldImages`, "the images of a pod with a trust class cannot be changed: make a new pod"},
			{
				`object.spec.?tolerations.orValue([]).all(t, !` + ours + ` || t in oldObject.spec.?tolerations.orValue([]))`,
				"pods with a trust class must not tolerate the taint of untrusted nodes",
			},
		},
	}
}

// containerImages is podImages without ephemeral containers, which have a policy of their own.
func containerImages(name, object string) variable {
	return variable{name, object + `.spec.containers.map(c, c.?image.orValue('')) + ` + object + `.spec.?initContainers.orValue([]).map(c, c.?image.orValue(''))`}
}

func ephemeralContainers() policy {
	return policy{
		name: "ephemeral-containers", about: "containers are added to running pods of a class only where the class allows it",
		rules:  []rule{{resources: []string{"pods/ephemeralcontainers"}, operations: []arv1.OperationType{arv1.Update}}},
		object: true, table: true,
		variables: append([]variable{{"class", `oldObject.metadata.?labels[?CLASS_LABEL].orValue('')`}}, append(rules, podImages("images", "object"))...),
		checks: append([]check{
			known,
			{`variables.rules.ephemeralContainers == 'Allow'`, `'trust class ' + variables.class + ' allows no ephemeral containers'`},
			{`authorizer` + mayUse, `'user ' + request.userInfo.username + ' may not use trust class ' + variables.class`},
			pullCheck(ephemeralPulls),
		}, imageChecks...),
	}
}
