package check

import (
	"github.com/anishathalye/porcupine"

	"quicproquo.dev/test/history/record"
)

// pairModel is the one channel of two accounts: the first opening decides it.
func pairModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			o := input.(*record.Op) //nolint:forcetypeassert // what pairHistory makes.
			return state == "" || state == o.Channel, o.Channel
		},
		DescribeOperation: func(input, _ any) string { return describe(input.(*record.Op)) },    //nolint:forcetypeassert // as above.
		DescribeState:     func(state any) string { return "channel " + short(state.(string)) }, //nolint:forcetypeassert // as above.
	}
}

func pairHistory(ops []*record.Op) []porcupine.Operation {
	var out []porcupine.Operation
	for _, o := range ops {
		if o.Outcome == record.OK {
			out = append(out, porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Call, Return: o.Return})
		}
	}
	return out
}
