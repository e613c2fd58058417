// Package conn speaks the cell's wire protocol over one QUIC connection.
//
// The client opens one bidirectional stream, the control stream; frames go both ways on it. A frame above
// frame.ControlLimit travels alone on a unidirectional stream that its sender opens, so it delays nothing else; it
// may arrive before or after what was sent around it. docs/protocol.md describes the protocol.
package conn
