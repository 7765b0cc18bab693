// Command kubernetes reads manifests as Kubernetes does, by its own types, and
// prints the first container of the Deployment and how long its pod has to end, as
// JSON. It is a module of its own, so that kwai's has none of what it needs.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"slices"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	strict "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

func main() {
	log.SetFlags(0)
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = check(text, os.Stdout)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// manifests are what a file of manifests must have, each once.
type manifests struct {
	deployment apps.Deployment
	service    core.Service
	budget     policy.PodDisruptionBudget
}

func check(text []byte, out io.Writer) error {
	var m manifests
	if err := m.read(text); err != nil {
		return err
	}
	pod := m.deployment.Spec.Template
	if err := errors.Join(append(m.wrongLabels(pod.Labels), m.wrongNames(pod.Spec)...)...); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(map[string]any{
		"container": pod.Spec.Containers[0], "security": pod.Spec.SecurityContext, "grace": pod.Spec.TerminationGracePeriodSeconds,
		"mode": pod.Spec.Volumes[0].Secret.DefaultMode,
	})
}

func (m *manifests) read(text []byte) error {
	kinds := map[string]any{"apps/v1 Deployment": &m.deployment, "v1 Service": &m.service, "policy/v1 PodDisruptionBudget": &m.budget}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var head struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal(document, &head); err != nil {
			return err
		}
		kind := head.APIVersion + " " + head.Kind
		into, ok := kinds[kind]
		if !ok {
			return fmt.Errorf("a %s is one too many, or not expected", kind)
		}
		delete(kinds, kind)
		asJSON, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		// As the API server: unlike Go, it distinguishes small letters from capitals.
		unknown, err := strict.UnmarshalStrict(asJSON, into)
		if err := errors.Join(append(unknown, err)...); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	if len(kinds) > 0 {
		return fmt.Errorf("missing: %v", slices.Collect(maps.Keys(kinds)))
	}
	return nil
}

// wrongLabels are the selectors that don't select the pods.
func (m *manifests) wrongLabels(pods map[string]string) (errs []error) {
	for what, labels := range map[string]map[string]string{
		"the deployment": m.deployment.Spec.Selector.MatchLabels, "the service": m.service.Spec.Selector, "the budget": m.budget.Spec.Selector.MatchLabels,
	} {
		if len(labels) == 0 || !maps.Equal(labels, pods) {
			errs = append(errs, fmt.Errorf("%s selects %v, the pods are %v", what, labels, pods))
		}
	}
	return errs
}

// wrongNames are names of ports and volumes that nothing has.
func (m *manifests) wrongNames(pod core.PodSpec) (errs []error) {
	container := pod.Containers[0]
	for _, port := range []intstr.IntOrString{
		m.service.Spec.Ports[0].TargetPort, container.StartupProbe.HTTPGet.Port, container.ReadinessProbe.HTTPGet.Port, container.LivenessProbe.HTTPGet.Port,
	} {
		if !slices.ContainsFunc(container.Ports, func(p core.ContainerPort) bool { return p.Name == port.StrVal }) {
			errs = append(errs, fmt.Errorf("there is no port %s", port.String()))
		}
	}
	for _, mount := range container.VolumeMounts {
		if !slices.ContainsFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == mount.Name }) {
			errs = append(errs, fmt.Errorf("there is no volume %s", mount.Name))
		}
	}
	return errs
}
