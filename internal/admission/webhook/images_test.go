package webhook

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission/images"
	"touchstone.dev/touchstone/internal/admission/images/imagetest"
)

// TestImages: pods of a class that wants signed and encrypted images, from a registry that wants credentials.
func TestImages(t *testing.T) {
	w := newWorld(t)
	r := imagetest.New(t, private)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	silence := strings.TrimPrefix(silent.URL, "http://")
	checker, err := images.New(images.Options{Insecure: []string{r.Host, silence}})
	w.must(err)
	stop := w.run(Options{Images: checker, PullSecrets: true})
	defer stop()
	_, otherKey := imagetest.NewKey(t)
	class := func(name string, keys []string, encryption string) {
		w.class(name, func(s *v1alpha1.TrustClassSpec) {
			s.Network.Isolation = v1alpha1.None
			s.Images.SignedBy, s.Images.Encryption, s.EphemeralContainers = keys, encryption, v1alpha1.Allow
		})
	}
	class("signed", []string{otherKey, r.Key}, v1alpha1.Any)
	class("encrypted", []string{r.Key}, v1alpha1.Required)
	class("elsewhere", []string{otherKey}, v1alpha1.Any)
	class("broken", []string{r.Key, "x"}, v1alpha1.Any)
	w.enforced("signed", metav1.ConditionTrue, "InPlace", "")
	w.enforced("broken", metav1.ConditionFalse, "KeysUnreadable", "images.signedBy: key 2: want one PEM block")
	w.namespace("pay")
	auth, err := json.Marshal(map[string]any{"auths": map[string]any{r.Host: map[string]string{"username": "pay", "password": "secret"}}})
	w.must(err)
	w.must(w.Create(ctx, secret("pay", "pull", auth)))
	w.must(w.Create(ctx, secret("pay", "broken", []byte(`{"auths":{"x":{"auth":"%"}}}`))))

	plain := r.Push("app", r.Image(imagetest.PlainLayer))
	r.Sign(plain, nil)
	encrypted := r.Push("app", r.Image(imagetest.EncryptedLayer))
	r.Sign(encrypted, nil)
	unsigned := r.Push("app", r.Image(imagetest.PlainLayer, imagetest.PlainLayer))

	try := func(class, secret string, names ...string) error {
		p := pod("pay", class, names...)
		if secret != "" {
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: secret}, {Name: "absent"}}
		}
		return w.Create(ctx, p)
	}
	w.eventually("a signed image", func() error { return try("signed", "pull", plain) })
	w.eventually("class encrypted", func() error { return try("encrypted", "pull", encrypted) })
	w.eventually("class elsewhere", func() error { return refusedWith(try("elsewhere", "pull", plain), "no signature of 1 by 1 keys holds") })
	for _, c := range []struct {
		name, class, secret string
		images              []string
		want                string
	}{
		{"the second is not signed", "signed", "pull", []string{plain, unsigned}, "image " + unsigned + ": registry " + r.Host + ": it is not signed"},
		{"signed, not encrypted", "encrypted", "pull", []string{plain}, "is not encrypted"},
		{"tag", "signed", "pull", []string{r.Host + "/app:latest"}, "must be named by its digest"},
		{"a registry that nobody named", "signed", "", []string{strings.Replace(plain, r.Host, "169.254.169.254", 1)}, "is not one that is asked"},
		{"a registry that does not answer", "signed", "pull", []string{strings.Replace(plain, r.Host, silence, 1)}, "registry " + silence + ": it did not answer in time"},
		{"a class with a broken key", "broken", "pull", []string{plain}, "images.signedBy: key 2"},
		{"no secret", "signed", "", []string{unsigned}, "it answered 401"},
		{"secret without credentials", "signed", "broken", []string{unsigned}, "imagePullSecrets: broken"},
	} {
		if err := refusedWith(try(c.class, c.secret, c.images...), c.want); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	t.Run("ephemeral container", func(t *testing.T) {
		p := pod("pay", "signed", plain)
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		w.must(w.Create(ctx, p))
		for image, want := range map[string]string{unsigned: "it is not signed", plain: ""} {
			q := p.DeepCopy()
			q.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: image}}}
			err := w.SubResource("ephemeralcontainers").Update(ctx, q)
			if want == "" && err != nil || want != "" && refusedWith(err, want) != nil {
				t.Errorf("image %s: %v, want %q", image, err, want)
			}
		}
	})
	p := pod("pay", "signed", plain)
	p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: unsigned}}
	if err := refusedWith(w.Create(ctx, p), "image "+unsigned); err != nil {
		t.Errorf("init container: %v", err)
	}
	p.Spec.InitContainers = nil
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: unsigned}}}}
	if err := refusedWith(w.Create(ctx, p), "image "+unsigned); err != nil {
		t.Errorf("image volume: %v", err)
	}
}

// private lets the registry's clients read with a password only; what the test puts there needs none.
func private(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if strings.HasPrefix(r.UserAgent(), "touchstone/") && (user != "pay" || password != "secret") {
			w.Header().Set("WWW-Authenticate", `Basic realm="pay"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func secret(namespace, name string, config []byte) *corev1.Secret {
	s := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: config}}
	s.Namespace, s.Name = namespace, name
	return s
}
