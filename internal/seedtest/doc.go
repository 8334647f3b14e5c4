// Package seedtest says how many random histories the model-based tests play, and
// repeats one that has failed.
//
// Without more a test plays the few that it names, which are cheap and mostly
// the same in each run. ROWCALL_MODEL_SEEDS=100 plays each model with a hundred
// seeds, and one that needs a server with ten; they differ from run to run. A
// failure says its seed, and ROWCALL_TEST_SEED=seed plays that one alone, or
// begins with it if ROWCALL_MODEL_SEEDS is set, too.
//
// The same seed draws the same history. What the scheduler makes of it may
// differ, so a failure may need a few attempts (-count).
package seedtest
