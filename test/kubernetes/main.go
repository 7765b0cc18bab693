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

func check(text []byte, out io.Writer) error {
	var deployment apps.Deployment
	var service core.Service
	var budget policy.PodDisruptionBudget
	kinds := map[string]any{"apps/v1 Deployment": &deployment, "v1 Service": &service, "policy/v1 PodDisruptionBudget": &budget}
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
		// As the API server: unlike Go, it tells small letters from capitals.
		unknown, err := strict.UnmarshalStrict(asJSON, into)
		if err := errors.Join(append(unknown, err)...); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	if len(kinds) > 0 {
		return fmt.Errorf("missing: %v", slices.Collect(maps.Keys(kinds)))
	}
	pod := deployment.Spec.Template
	container := pod.Spec.Containers[0]
	var errs []error
	for what, labels := range map[string]map[string]string{
		"the deployment": deployment.Spec.Selector.MatchLabels, "the service": service.Spec.Selector, "the budget": budget.Spec.Selector.MatchLabels,
	} {
		if len(labels) == 0 || !maps.Equal(labels, pod.Labels) {
			errs = append(errs, fmt.Errorf("%s selects %v, the pods are %v", what, labels, pod.Labels))
		}
	}
	for _, port := range []intstr.IntOrString{
		service.Spec.Ports[0].TargetPort, container.StartupProbe.HTTPGet.Port, container.ReadinessProbe.HTTPGet.Port, container.LivenessProbe.HTTPGet.Port,
	} {
		if !slices.ContainsFunc(container.Ports, func(p core.ContainerPort) bool { return p.Name == port.StrVal }) {
			errs = append(errs, fmt.Errorf("there is no port %s", port.String()))
		}
	}
	for _, mount := range container.VolumeMounts {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v core.Volume) bool { return v.Name == mount.Name }) {
			errs = append(errs, fmt.Errorf("there is no volume %s", mount.Name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(map[string]any{
		"container": container, "security": pod.Spec.SecurityContext, "grace": pod.Spec.TerminationGracePeriodSeconds,
		"mode": pod.Spec.Volumes[0].Secret.DefaultMode,
	})
}
