package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// CertificateMode says what the cell makes of client certificates.
type CertificateMode string

const (
	// CertificatesNone asks no client for a certificate.
	CertificatesNone CertificateMode = "none"
	// CertificatesOptional asks for one, and refuses a client whose
	// certificate is not right, but not one that has none.
	CertificatesOptional CertificateMode = "optional"
	// CertificatesRequired refuses a client without a right certificate.
	CertificatesRequired CertificateMode = "required"
)

// AdminRole is what an admin may do.
type AdminRole string

const (
	// RoleCellAdmin may make every admin call.
	RoleCellAdmin AdminRole = "cellAdmin"
	// RoleAuditor may read accounts and export the audit log.
	RoleAuditor AdminRole = "auditor"
)

// Access is what a client shows of itself in the TLS handshake, and which of
// them are admins.
type Access struct {
	// ClientCertificates is what the cell makes of client certificates. They
	// are judged by the cell's own bundle of client CAs. Default none.
	ClientCertificates CertificateMode `json:"clientCertificates"`
	// Admins are the client certificates that may make admin calls, at most
	// 64, sorted by name. Default none.
	Admins []Admin `json:"admins"`
}

// Admin is a client certificate that may make admin calls.
type Admin struct {
	// Name is a URI of the certificate's subject alternative names or, where
	// it has no URI, the common name of its subject: 1 to 253 characters,
	// compared exactly.
	Name string `json:"name"`
	// Role is what it may do.
	Role AdminRole `json:"role"`
}

// maxAdmins bounds the list that is searched at each admin's login.
const maxAdmins = 64

// adminName is a name without control characters or blanks at its ends, which
// nobody could see in a list.
var adminName = regexp.MustCompile(`^[^\p{C}\s]([^\p{C}]*[^\p{C}\s])?$`)

// maxAdminName is the longest name, in characters.
const maxAdminName = 253

// admins is a list of admins, sorted by name so that equal policies have equal
// bytes.
type admins struct {
	name string
	at   *[]Admin
}

func (f *admins) path() string { return f.name }

func (f *admins) load(value any) *FieldError {
	list, ok := value.([]any)
	if !ok {
		return &FieldError{f.name, describe(value) + " is not a list", "write a list of name and role"}
	}
	*f.at = make([]Admin, len(list))
	for i, item := range list {
		path := fmt.Sprintf("%s[%d]", f.name, i)
		section, ok := item.(map[string]any)
		if !ok {
			return &FieldError{path, describe(item) + " is not an admin", "write {name: NAME, role: cellAdmin} or {name: NAME, role: auditor}"}
		}
		if fault := (*f.at)[i].load(path, section); fault != nil {
			return fault
		}
	}
	return nil
}

func (a *Admin) load(path string, section map[string]any) *FieldError {
	for key, value := range section {
		var to *string
		switch key {
		case "name":
			to = &a.Name
		case "role":
			to = (*string)(&a.Role)
		default:
			return &FieldError{path + "." + strings.Trim(describe(key), `"`), "there is no such field", "write one of name, role, or remove it"}
		}
		text, ok := value.(string)
		if !ok && value != nil {
			return &FieldError{path + "." + key, describe(value) + " is not a string", "write a string"}
		}
		*to = text
	}
	return nil
}

func (f *admins) fill() {
	list := make([]Admin, len(*f.at))
	copy(list, *f.at)
	slices.SortStableFunc(list, func(a, b Admin) int { return strings.Compare(a.Name, b.Name) })
	*f.at = list
}

func (f *admins) check() *FieldError {
	if len(*f.at) > maxAdmins {
		return &FieldError{f.name, fmt.Sprintf("%d admins are too many", len(*f.at)), fmt.Sprintf("write at most %d", maxAdmins)}
	}
	for i, a := range *f.at {
		path := fmt.Sprintf("%s[%d]", f.name, i)
		switch {
		case utf8.RuneCountInString(a.Name) > maxAdminName || !adminName.MatchString(a.Name):
			return &FieldError{path + ".name", describe(a.Name) + " is no name of a certificate", "write the URI or else the common name of the admin's certificate, at most 253 characters, without blanks at its ends"}
		case a.Role != RoleCellAdmin && a.Role != RoleAuditor:
			return &FieldError{path + ".role", describe(string(a.Role)) + " is not known here", "write cellAdmin or auditor"}
		case i > 0 && (*f.at)[i-1].Name == a.Name:
			return &FieldError{path + ".name", describe(a.Name) + " stands there twice", "remove one of them"}
		}
	}
	return nil
}

// fault judges whether the list of admins can ever match anybody.
func (a *Access) fault() *FieldError {
	if len(a.Admins) == 0 || a.ClientCertificates != CertificatesNone {
		return nil
	}
	return &FieldError{"access.admins", "names client certificates, but access.clientCertificates asks for none", "write clientCertificates: optional or required, or remove admins"}
}
