package controllers

import (
	"reflect"
	"strconv"
)

// lacking returns the path of the first thing that want has and have has not,
// "" if have has everything: every field of a map, every element of a list.
// Both are JSON as runtime converters make it. What the API server or others
// added does not count.
func lacking(have, want any) string { return lack(have, want, "") }

func lack(have, want any, path string) string {
	switch want := want.(type) {
	case map[string]any:
		if fields, ok := have.(map[string]any); ok || have == nil {
			return lackFields(fields, want, path)
		}
	case []any:
		if list, ok := have.([]any); ok || have == nil {
			return lackElements(list, want, path)
		}
	default:
		if reflect.DeepEqual(have, want) || have == nil && isZero(want) {
			return ""
		}
	}
	return path
}

func lackFields(have, want map[string]any, path string) string {
	for name, value := range want {
		if at := lack(have[name], value, path+"."+name); at != "" {
			return at
		}
	}
	return ""
}

// lackElements matches elements that have a name by it, wherever they stand,
// and others by their place.
func lackElements(have, want []any, path string) string {
	if !named(want) && len(have) != len(want) {
		return path
	}
	for i, element := range want {
		name := nameOf(element)
		if name == "" {
			if at := lack(have[i], element, path+"["+strconv.Itoa(i)+"]"); at != "" {
				return at
			}
			continue
		}
		if at := lack(findNamed(have, name), element, path+"["+name+"]"); at != "" {
			return at
		}
	}
	return ""
}

func nameOf(element any) string {
	fields, ok := element.(map[string]any)
	if !ok {
		return ""
	}
	name, _ := fields["name"].(string) //nolint:revive // Anything else is no name.
	return name
}

// named reports whether all elements have names, by which the API server tells
// them apart too.
func named(list []any) bool {
	for _, element := range list {
		if nameOf(element) == "" {
			return false
		}
	}
	return len(list) > 0
}

func findNamed(have []any, name string) any {
	for _, element := range have {
		if nameOf(element) == name {
			return element
		}
	}
	return nil
}

// isZero is about what a typed object writes though nobody set it, and the API
// server leaves out.
func isZero(value any) bool {
	return value == nil || reflect.ValueOf(value).IsZero()
}
