"""Memory that is kept: LLM10's two lines to glibc, looked at in fresh processes."""

from labs.kit.measure import in_new_process

# 64 blocks of a MiB each, written to and dropped: more than glibc keeps by itself
FAULTS = "print(cost(lambda: [b'x' * 2**20 for _ in range(64)])[1])"


def test_memory_that_is_kept_is_not_mapped_again():
    plain = in_new_process(f"from labs.llm10_llama.memory import cost; {FAULTS}")
    kept = in_new_process(f"from labs.llm10_llama.memory import cost, keep_memory; keep_memory(); {FAULTS}")
    assert plain > 64 / 2, "each time, even where a page is 2 MiB"
    assert kept < plain / 4
