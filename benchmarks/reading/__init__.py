"""The parts of `zoo`: models of many libraries, and verdicts on their reading."""
