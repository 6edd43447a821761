"""What the tables say together: where peers are ahead, and the means of the ratios."""

import math

MEANS = (("time", "seconds"), ("memory", "peak_bytes"), ("latency", "latency"), ("bytes", "bytes"))
COLUMNS = {"standard": "onnxpress", "runtime": "onnxpress runtime"}
"""Which of ours a rival is held against."""


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def excess(ours, theirs):
    """"Add +3, Mul -1": our operators less theirs."""
    names = sorted(set(ours.operators) | set(theirs.operators))
    differences = {name: ours.operators.get(name, 0) - theirs.operators.get(name, 0) for name in names}
    return ", ".join(f"{name} {count:+d}" for name, count in differences.items() if count)


def pairs(everything, programs, level):
    """(model, our result, the rivals' usable results)."""
    rivals = [tool.name for tool in programs if tool.rival == level]
    for model, results in everything.items():
        by_tool = {result.tool: result for result in results}
        ours = by_tool.get(COLUMNS[level])
        if ours is None or ours.failure:
            continue
        usable = [by_tool[name] for name in rivals if not by_tool[name].failure and by_tool[name].equal]
        if usable:
            yield model, ours, usable


def print_ahead(everything, programs, level):
    behind, larger, count = [], [], 0
    for model, ours, rivals in pairs(everything, programs, level):
        count += 1
        best = min(rivals, key=lambda rival: sum(rival.operators.values()))
        gap = sum(ours.operators.values()) - sum(best.operators.values())
        if gap > 0:
            behind.append((model, ours, best, gap))
        smallest = min(rivals, key=lambda rival: rival.bytes)
        if ours.bytes > smallest.bytes:
            larger.append((model, ours, smallest))
    print(f"\n### {COLUMNS[level]}: more operators than the best peer on {len(behind)} of {count} models\n")
    if behind:
        print("| model | ours | best | peer | by | ours less theirs |\n|---|---|---|---|---|---|")
    for model, ours, best, gap in behind:
        print(f"| {model} | {sum(ours.operators.values())} | {sum(best.operators.values())} | {best.tool} | {gap} | {excess(ours, best)} |")
    print(f"\n### {COLUMNS[level]}: larger file than the smallest peer's on {len(larger)} of {count} models\n")
    if larger:
        print("| model | ours | smallest | peer | by |\n|---|---|---|---|---|")
    for model, ours, smallest in larger:
        print(f"| {model} | {ours.bytes:,} | {smallest.bytes:,} | {smallest.tool} | {ours.bytes - smallest.bytes:,} |")


def print_means(everything, programs):
    print("\n### Peers over ours, geometric means (above 1: ours is less)\n")
    print("| peer | models | " + " | ".join(title for title, _ in MEANS) + " |\n|---|---|" + "---|" * len(MEANS))
    for tool in programs:
        if not tool.rival:
            continue
        couples = []
        for results in everything.values():
            by_tool = {result.tool: result for result in results}
            ours, theirs = by_tool.get(COLUMNS[tool.rival]), by_tool.get(tool.name)
            if ours and theirs and not ours.failure and not theirs.failure:
                couples.append((ours, theirs))
        cells = []
        for _, field in MEANS:
            ratios = [getattr(theirs, field) / getattr(ours, field) for ours, theirs in couples
                      if getattr(theirs, field) and getattr(ours, field)]  # fmt: skip
            cells.append(f"{geometric_mean(ratios):.2f}" if ratios else "")
        print(f"| {tool.name} | {len(couples)} | {' | '.join(cells)} |")


def print_summary(everything, programs):
    print("\n## Summary")
    for level in COLUMNS:
        print_ahead(everything, programs, level)
    print_means(everything, programs)
    print("\n### Failures and outputs that differ\n")
    trouble = [(model, result) for model, results in everything.items() for result in results if result.failure or not result.equal]
    for model, result in trouble:
        print(f"- {model}, {result.tool}: {result.failure or f'outputs differ by {result.error:.1e}'}")
    if not trouble:
        print("none")
