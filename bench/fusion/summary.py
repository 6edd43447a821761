"""What the tables say together: where peers are ahead, and the means of the ratios."""

import math

MEANS = (("time", "seconds"), ("memory", "peak_bytes"), ("latency", "latency"), ("bytes", "bytes"), ("bare", "bare_bytes"))
COLUMNS = {"standard": "onnxpress", "runtime": "onnxpress runtime"}
"""Which of ours a rival is held against."""
GROWN = 1.01
"""Times the original's bytes: a file beyond that has grown (weights that the model computed are in it, as a rule)."""


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
    """Where a rival has fewer operators: the best of all, and the best of those that did not grow the file for it."""
    ours_is = COLUMNS[level]
    behind, count = [], 0
    for model, ours, rivals in pairs(everything, programs, level):
        count += 1
        original = next(result for result in everything[model] if result.tool == "original")
        total = sum(ours.operators.values())
        for grown in (False, True):
            found = [rival for rival in rivals if grown == (rival.bytes > original.bytes * GROWN)]
            best = min(found, key=lambda rival: sum(rival.operators.values()), default=None)
            if best and sum(best.operators.values()) < total:
                behind.append((model, ours, best, original, grown))
    fair = sum(not grown for *_, grown in behind)
    print(f"\n### {ours_is}: more operators than the best peer on {fair} of {count} models")
    print(f"\nThan a peer that grew the file by more than {GROWN - 1:.0%} for it, on {len(behind) - fair} models.\n")
    if behind:
        print("| model | ours | best | peer | ours less theirs | bytes | its bytes | original's |\n|---|---|---|---|---|---|---|---|")
    for model, ours, best, original, _ in behind:
        print(f"| {model} | {sum(ours.operators.values())} | {sum(best.operators.values())} | {best.tool} | {excess(ours, best)} "
              f"| {ours.bytes:,} | {best.bytes:,} | {original.bytes:,} |")  # fmt: skip


def print_larger(everything, programs, level, field, what):
    larger, count = [], 0
    for model, ours, rivals in pairs(everything, programs, level):
        sizes = [rival for rival in rivals if getattr(rival, field)]
        if not sizes or not getattr(ours, field):
            continue
        count += 1
        smallest = min(sizes, key=lambda rival: getattr(rival, field))
        if getattr(ours, field) > getattr(smallest, field):
            larger.append((model, getattr(ours, field), getattr(smallest, field), smallest.tool))
    print(f"\n### {COLUMNS[level]}: larger than the smallest peer's file, {what}, on {len(larger)} of {count} models\n")
    if larger:
        print("| model | ours | smallest | peer | by |\n|---|---|---|---|---|")
    for model, ours, smallest, tool in larger:
        print(f"| {model} | {ours:,} | {smallest:,} | {tool} | {ours - smallest:,} |")


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
        print_larger(everything, programs, level, "bytes", "as written")
        print_larger(everything, programs, level, "bare_bytes", "all without metadata")
    print_means(everything, programs)
    print("\n### Failures and outputs that differ\n")
    trouble = [(model, result) for model, results in everything.items() for result in results if result.failure or not result.equal]
    for model, result in trouble:
        print(f"- {model}, {result.tool}: {result.failure or f'outputs differ by {result.error:.1e}'}")
    if not trouble:
        print("none")
