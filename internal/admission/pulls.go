package admission

// Where a class wants encrypted images, each container pulls anew. The runtime keeps what a node decrypted in plain, and would start any pod's container from
// it; a pull at least has the registry ask whether the pod's own secrets open the image. (Kubernetes' AlwaysPullImages does the same for all pods.)

// pulled tells whether containers of a class pull at each start. A table of an older version does not say: then they do.
const pulled = `params.?classes[?variables.class].?pullPolicy.orValue('Always') == 'Always'`

// pullPatch sets what the API server has filled in already, so it cannot tell what a person left out.
const pullPatch = ` + (!(` + pulled + `) ? [] :
	object.spec.containers.transformList(i, c, JSONPatch{op: 'add', path: '/spec/containers/' + string(i) + '/imagePullPolicy', value: 'Always'}) +
	object.spec.?initContainers.orValue([]).transformList(i, c, JSONPatch{op: 'add', path: '/spec/initContainers/' + string(i) + '/imagePullPolicy', value: 'Always'}) +
	object.spec.?volumes.orValue([]).transformList(i, v, has(v.image), JSONPatch{op: 'add', path: '/spec/volumes/' + string(i) + '/image/pullPolicy', value: 'Always'}))`

// pullCheck demands it of a list of pull policies.
func pullCheck(policies string) check {
	return check{
		`!(` + pulled + `) || ` + policies + `.all(p, p == 'Always')`,
		`'trust class ' + variables.class + ' wants encrypted images, which lie in plain on a node that has opened them: imagePullPolicy must be Always, so that the right to the image is asked of its registry whenever a container starts'`,
	}
}

const (
	podPulls = `(object.spec.containers.map(c, c.?imagePullPolicy.orValue('')) +
		object.spec.?initContainers.orValue([]).map(c, c.?imagePullPolicy.orValue('')) +
		object.spec.?volumes.orValue([]).filter(v, has(v.image)).map(v, v.image.?pullPolicy.orValue('')))`
	ephemeralPulls = `object.spec.?ephemeralContainers.orValue([]).map(c, c.?imagePullPolicy.orValue(''))`
)
