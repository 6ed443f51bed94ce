package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// keptService is a file under services, in the form Consul gives it.
type keptService struct {
	Token   string
	Service *catalog.Service
	Source  string
}

// keptCheck is a file under checks. ChkType is absent for maintenance.
type keptCheck struct {
	Check   *catalog.Check
	ChkType *keptCheckType
	Token   string
	Source  string
}

type keptCheckType struct {
	check.Definition
	DeregisterCriticalServiceAfter time.Duration `json:",omitempty"`
}

// keptState is a file under checks/state. Expires, in Unix seconds, is when the
// status of a TTL check runs out; 0 for all others.
type keptState struct {
	CheckID string
	Status  string
	Output  string
	Expires int64
}

func encodeService(s *service) (file, error) {
	record := *s.record
	record.Tags = s.def.Tags // not those that the catalog put in their place
	data, err := json.Marshal(keptService{Token: s.def.Token, Service: &record, Source: SourceAPI.String()})
	if err != nil {
		return file{}, fmt.Errorf("encode service %q: %w", s.def.ID, err)
	}
	return file{name(servicesDir, s.def.ID), data}, nil
}

func encodeCheck(c *checkState) (file, error) {
	record := *c.record
	record.Status, record.Output = c.def.Status, ""
	kept := keptCheck{Check: &record, Token: c.def.Token, Source: SourceAPI.String()}
	if !record.IsMaintenance() {
		kept.ChkType = &keptCheckType{c.def.Definition, c.def.DeregisterCriticalServiceAfter}
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return file{}, fmt.Errorf("encode check %q: %w", c.def.ID, err)
	}
	return file{name(checksDir, c.def.ID), data}, nil
}

func decodeService(data []byte) (definition.Service, error) {
	var kept keptService
	if err := json.Unmarshal(data, &kept); err != nil {
		return definition.Service{}, err
	}
	if kept.Service == nil {
		return definition.Service{}, errors.New("holds no service")
	}
	def := definition.FromRecord(kept.Service)
	def.Token = kept.Token
	return def, nil
}

func decodeCheck(data []byte) (definition.Check, error) {
	var kept keptCheck
	if err := json.Unmarshal(data, &kept); err != nil {
		return definition.Check{}, err
	}
	c := kept.Check
	if c == nil {
		return definition.Check{}, errors.New("holds no check")
	}
	def := definition.Check{
		ID: c.CheckID, Name: c.Name, Notes: c.Notes, Status: c.Status,
		ServiceID: c.ServiceID, Token: kept.Token,
	}
	switch {
	case kept.ChkType != nil:
		def.Definition = kept.ChkType.Definition
		def.DeregisterCriticalServiceAfter = kept.ChkType.DeregisterCriticalServiceAfter
	case !c.IsMaintenance():
		return definition.Check{}, errors.New("does not say what the check does")
	}
	return def, nil
}

func decodeState(data []byte) (keptState, error) {
	var kept keptState
	if err := json.Unmarshal(data, &kept); err != nil {
		return keptState{}, err
	}
	if !validStatus(kept.Status) {
		return keptState{}, fmt.Errorf("holds the unknown status %q", kept.Status)
	}
	return kept, nil
}

// wrongPlace reports that a file holds another ID than its name says: a copy
// made by hand, or damage that left the syntax whole.
func wrongPlace(path, id string) error {
	if filepath.Base(name("", id)) != filepath.Base(path) {
		return fmt.Errorf("holds the ID %q, which is not what it is named after", id)
	}
	return nil
}
