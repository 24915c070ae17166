package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission/images"
	"touchstone.dev/touchstone/internal/admission/signature"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
)

// Images decides on images of pods, as an images.Checker does.
type Images interface {
	// Check returns an error, for the person who made the pod, unless the image is what is demanded.
	Check(ctx context.Context, image string, want images.Demand) (*images.Report, error)
}

// Compliance knows scans of images.
type Compliance interface {
	// Judge says what a gate says of an image, named by its digest.
	Judge(ctx context.Context, g *imagescans.Gate, image string) (*imagescans.Verdict, error)
}

// Bounds of the questions to registries for one pod.
const (
	maxImages   = 32
	maxAtOnce   = 8
	maxSecrets  = 8
	imagesTime  = 12 * time.Second // the API server waits for 15, and then says nothing of the reason
	pullSecrets = "reading imagePullSecrets"
)

// imagesOf returns nil when the images of a pod are what its class wants.
func (p *pods) imagesOf(ctx context.Context, want *v1alpha1.ImageRequirement, namespace string, pod *corev1.Pod, class string) error {
	asked := len(want.SignedBy) > 0 || want.Encryption == v1alpha1.Required
	if !asked && want.Compliance == nil {
		return nil
	}
	names := imagescans.Names(pod)
	if len(names) > maxImages {
		return fmt.Errorf("trust class %s checks images: at most %d different ones in a pod, this one has %d", class, maxImages, len(names))
	}
	if asked && p.images == nil {
		return fmt.Errorf("trust class %s wants images signed or encrypted, which this controller cannot check", class)
	}
	ctx, cancel := context.WithTimeout(ctx, imagesTime)
	defer cancel()
	demand := p.demand(want, namespace, pod)
	gate, err := p.gate(want.Compliance)
	if err != nil {
		return fmt.Errorf("trust class %s: %w", class, err)
	}
	problems := make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(maxAtOnce)
	for i, image := range names {
		g.Go(func() error {
			if asked {
				_, problems[i] = p.images.Check(ctx, image, demand)
			}
			if problems[i] == nil && gate != nil {
				problems[i] = p.compliant(ctx, gate, image)
			}
			return nil
		})
	}
	_ = g.Wait()
	for i, problem := range problems {
		if problem != nil {
			return fmt.Errorf("trust class %s: image %s: %w", class, names[i], problem)
		}
	}
	return nil
}

// imagesProblem is what is wrong with what a class asks of images: it would refuse every pod, and says so before one is made.
func imagesProblem(class *v1alpha1.TrustClass) *problem {
	const refused = "; pods of the class are refused"
	want := &class.Spec.Images
	if len(want.SignedBy) > 0 {
		if _, err := signature.ParseKeys(want.SignedBy); err != nil {
			return &problem{reasonKeys, "images.signedBy: " + err.Error() + refused}
		}
	}
	if want.Compliance != nil {
		if _, err := imagescans.NewGate(want.Compliance); err != nil {
			return &problem{reasonCompliance, err.Error() + refused}
		}
	}
	return nil
}

// demand is what is asked of each image of a pod.
func (p *pods) demand(want *v1alpha1.ImageRequirement, namespace string, pod *corev1.Pod) images.Demand {
	d := images.Demand{SignedBy: want.SignedBy, Encrypted: want.Encryption == v1alpha1.Required, Registries: want.Registries}
	if !p.pullSecrets {
		return d
	}
	// Those of the service account are among the pod's by now: the API server has put them there.
	d.Scope = namespace
	for _, s := range pod.Spec.ImagePullSecrets {
		d.Scope += "/" + s.Name
	}
	d.Credentials = func(ctx context.Context) (images.Keyring, error) {
		return p.keyring(ctx, namespace, pod.Spec.ImagePullSecrets)
	}
	return d
}

// keyring reads the secrets that a pod pulls with. One that is not there, or that the controller may not read, is passed over, as by the kubelet: the
// images may be public.
func (p *pods) keyring(ctx context.Context, namespace string, refs []corev1.LocalObjectReference) (images.Keyring, error) {
	if len(refs) > maxSecrets {
		return nil, fmt.Errorf("%s: the pod names %d, at most %d are read", pullSecrets, len(refs), maxSecrets)
	}
	var all images.Keyring
	for _, r := range refs {
		var s corev1.Secret
		err := p.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: r.Name}, &s)
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", pullSecrets, r.Name, err)
		}
		k, err := keyringOf(&s)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", pullSecrets, r.Name, err)
		}
		all = append(all, k...)
	}
	return all, nil
}

func keyringOf(s *corev1.Secret) (images.Keyring, error) {
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		return images.ParseKeyring(s.Data[corev1.DockerConfigJsonKey])
	case corev1.SecretTypeDockercfg:
		return images.ParseOldKeyring(s.Data[corev1.DockerConfigKey])
	}
	return nil, errors.New("it is no Secret for images")
}

// gate is what a class asks of scans; nil: nothing.
func (p *pods) gate(want *v1alpha1.ComplianceRequirement) (*imagescans.Gate, error) {
	switch {
	case want == nil:
		return nil, nil
	case p.compliance == nil:
		return nil, errors.New("scans of images are wanted, which this controller cannot ask for")
	}
	return imagescans.NewGate(want)
}

// compliant returns nil when the scans of an image are what its class wants.
func (p *pods) compliant(ctx context.Context, gate *imagescans.Gate, image string) error {
	if _, _, err := imagescans.Split(image); err != nil {
		return err
	}
	said, err := p.compliance.Judge(ctx, gate, image)
	if err != nil {
		return fmt.Errorf("AIAS cannot be asked for its scans: %w", err)
	}
	return gate.Refusal(said, image)
}
