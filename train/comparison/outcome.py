"""The outcome of a comparison: its tables and pictures."""

from train import faults
from train.comparison import plan


def show(options: plan.Options) -> None:
    """Prints the tables and draws the pictures of the finished runs."""
    from train.record import pictures, statistics, terminal
    from train.record.metrics import sentence

    runs = statistics.read_runs(options.out)
    if not runs:
        print("\nNo run finished.")
        return
    columns = terminal.width()
    tables, pictured = {}, ["curves.png", "drift.png", "energy.png", "times.png"]
    at = ""
    if len(plan.rates(options)) > 1:
        metric = statistics.chosen_by(runs)
        name = statistics.measured(runs)[metric].long
        tables[f"{sentence(name)} at each learning rate"] = statistics.rates_table(
            runs, metric
        )
        with pictures.unless_undrawn(warn):
            pictures.plot_rates(runs, metric, options.out / "rates.png")
            pictured.append("rates.png")
        runs = statistics.at_best_rates(runs, metric)
        at = f", each arm at the rate with its lowest {name}"
    baseline = "none" if options.protocol == "paired" else "then-none"
    tables |= {
        f"Last epoch, mean and standard deviation over seeds{at}": (
            statistics.arms_table(runs)
        ),
        f"Paired differences, with the 95 % t-interval of their mean{at}": (
            statistics.differences_table(runs, baseline)
        ),
        f"Every run{at}": statistics.raw_table(runs),
    }
    for title, (header, rows) in tables.items():
        if rows:
            table = terminal.terminal_table(header, rows, columns)
            print(f"\n{terminal.fitted(title, columns)}\n\n{table}")
    with faults.uninterrupted(), pictures.unless_undrawn(warn):
        pictures.plot_all(runs, options.out)
        shown = f"\nPictures in {options.out}: {', '.join(pictured)}"
        print(terminal.fitted(shown, columns))


def warn(text: str) -> None:
    """Warns the user of something that is not a failure."""
    print(f"warning: {text}")
