"""The names of walvault's metrics that the alert rules use."""

import pathlib
import re

RULES = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "walvault.rules.yml"


def metrics_in_rules(path=RULES):
    """Names as exported; what the rules record themselves (walvault:…) and texts of alerts are no metrics."""
    names = set()
    for line in pathlib.Path(path).read_text().splitlines():
        if re.match(r"\s*(#|summary:|runbook_url:|- record:|- alert:)", line):
            continue
        names |= set(re.findall(r"\bwalvault_[a-z0-9_]+\b", line))
    return sorted(names)


if __name__ == "__main__":
    print("\n".join(metrics_in_rules()))
