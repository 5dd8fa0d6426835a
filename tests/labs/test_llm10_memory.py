"""LLM10's memory settings for glibc, measured in new processes."""

from labs.kit.measure import in_new_process

# 64 blocks of 1 MiB, written to and dropped: more than glibc retains by default
FAULTS = "print(cost(lambda: [b'x' * 2**20 for _ in range(64)])[1])"
MEMORY = "from labs.kit import keep_memory; from labs.llm10_llama.memory import cost"


def test_freed_memory_is_not_mapped_again():
    default = in_new_process(f"{MEMORY}; {FAULTS}")
    retained = in_new_process(f"{MEMORY}; keep_memory(); {FAULTS}")
    assert default > 64 / 2, "in each call, even if a page is 2 MiB"
    assert retained < default / 4
