package bus

import (
	"encoding/json"
	"time"

	"kwai/internal/store"
)

// cloudEventType is the media type of a CloudEvent in JSON.
const cloudEventType = "application/cloudevents+json"

// cloudEvent is an event as other programs read it: CloudEvents 1.0, structured
// mode. It holds ids only: its readers need not know an address or a name, and a
// stream keeps events after an account has ended.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            eventData `json:"data"`
}

type eventData struct {
	User    string `json:"user"`
	Session string `json:"session,omitempty"`
	App     string `json:"app,omitempty"`
}

// encode writes an event of the server at source as a CloudEvent.
func encode(e store.Event, source string) ([]byte, error) {
	return json.Marshal(cloudEvent{
		SpecVersion:     "1.0",
		ID:              e.ID,
		Source:          source,
		Type:            "kwai." + e.Type,
		Subject:         e.UserID,
		Time:            e.CreatedAt.UTC(),
		DataContentType: "application/json",
		Data:            eventData{e.UserID, e.SessionID, e.AppID},
	})
}
