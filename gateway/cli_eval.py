"""`promptyard eval FILE`: prompts on routes and cases, scored and compared, as a file of them says."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway import config_yaml, strict
from gateway.cli_data import here
from gateway.errors import ConfigError, GatewayError, Problem, UpstreamFailed
from gateway.settings import Settings

if TYPE_CHECKING:
    from promptlab.evaluation.evaluating import Place
    from promptlab.evaluation.forecast import Forecast, Range
    from promptlab.evaluation.plan import Plan
    from promptlab.evaluation.report import Report
    from promptlab.evaluation.running import Progress

#: Seconds between two lines of progress where they cannot be written over each other.
_BETWEEN = 5.0


class _Ended(GatewayError):
    """An evaluation that was not begun, or did not come to its end."""


@click.command("eval")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--gate", metavar="CONDITION", help="Exit with 1 unless it holds: pass >= 0.9 and cost <= baseline * 1.1")
@click.option("--settled", is_flag=True, help="The gate must hold for the whole of each interval")
@click.option("--estimate", is_flag=True, help="Only say what it would take: calls, tokens, USD")
@click.option("--max-cost", type=click.FloatRange(0), metavar="USD", help="What it may cost, before what FILE says")
@click.option(
    "--answers", type=click.Path(path_type=Path), help="File that keeps the answers [default: in .promptyard]"
)
@click.option("--no-log", is_flag=True, help="Log no runs")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML to this file")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the report to this file")
@click.option("--server", help="The server to ask [default: the one on this machine]")
@click.option("--key", metavar="KEY", help="Key to call with, or @FILE that holds it [default: the admin key]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def eval_command(file: Path, **options: Any) -> None:
    """Evaluate what FILE describes: prompts × routes × cases, scored, compared, logged as runs.

    Answers are kept as they come: run it again after a stop, and nothing is asked twice. Exits with 1 where it could
    not be carried out, or the gate does not hold.
    """
    from promptlab.client import CallFailed
    from promptlab.evaluation.problems import PlanInvalid, Stopped

    place = _place(file, options)
    try:
        plan = _plan(file, place, options["max_cost"])
        if options["estimate"]:
            _estimate(plan, place, as_json=options["as_json"])
            return
        report = _evaluated(plan, place, options)
    except PlanInvalid as error:
        raise ConfigError.of(
            [Problem("", None, strict.dotted(place), said) for place, said in error.problems]
        ) from None
    except Stopped as error:
        raise _Ended(str(error)) from None
    except CallFailed as error:
        raise UpstreamFailed(str(error)) from None
    except KeyboardInterrupt:
        raise _Ended("Stopped. The answers so far are kept: run the same again to go on.") from None
    if not report.passed:
        click.get_current_context().exit(1)


def _plan(file: Path, place: Place, max_cost: float | None) -> Plan:
    """The plan in a file. Raises `ConfigError` with the lines of all that is wrong."""
    import asyncio

    from promptlab.evaluation import evaluating
    from promptlab.evaluation.problems import PlanInvalid

    document = config_yaml.read(file)
    if document.problems:
        raise ConfigError.of(document.problems)
    data = document.data
    if not isinstance(data, dict):
        raise ConfigError.of([Problem(str(file), None, "", "is not a mapping. It needs cases, prompts and routes.")])
    if max_cost is not None:
        data = {**data, "max_cost": max_cost}
    try:
        return asyncio.run(evaluating.understood({"name": file.stem, **data}, file.parent, place))
    except PlanInvalid as error:
        for where, message in error.problems:
            document.refuse(where, message)
        raise ConfigError.of(document.problems) from None


def _place(file: Path, options: dict[str, Any]) -> Place:
    from promptlab.evaluation.evaluating import Place, answers_file

    settings = Settings.load()
    server = options["server"] or here(settings)
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"--server: '{server}' must begin with http:// or https://.")
    key = options["key"] or (settings.admin_key.get_secret_value() if settings.admin_key else None)
    if options["key"] and options["key"].startswith("@"):
        key = Path(options["key"][1:]).read_text("utf-8").strip()
    return Place(server, key, options["answers"] or answers_file(file.parent, file.stem))


def _estimate(plan: Plan, place: Place, *, as_json: bool) -> None:
    import asyncio
    import dataclasses

    from promptlab.evaluation import evaluating

    found = asyncio.run(evaluating.foreseen(plan, place))
    click.echo(json.dumps(dataclasses.asdict(found)) if as_json else _forecast(found))


def _evaluated(plan: Plan, place: Place, options: dict[str, Any]) -> Report:
    import asyncio

    from promptlab.evaluation import evaluating, writing

    listening = evaluating.Listening(lambda found: click.echo(_forecast(found), err=True), _progress())
    work = evaluating.evaluated(
        plan,
        place,
        gate=options["gate"],
        settled=options["settled"],
        log=not options["no_log"],
        listening=listening,
    )
    report = asyncio.run(work)
    for name, text in (("junit", writing.junit), ("markdown", writing.markdown)):
        if (path := options[name]) is not None:
            said = text(report)
            path.write_bytes(said if isinstance(said, bytes) else said.encode())
    if options["as_json"]:
        click.echo(json.dumps(writing.document(report)))
    else:
        click.echo(writing.markdown(report), nl=False)
        if report.run_id is not None:
            click.echo(f"\nLogged in '{plan.experiment}' as run {report.run_id}.")
    return report


def _forecast(found: Forecast) -> str:
    calls = f"{found.calls} calls" + (f" and {found.judge_calls} of judges" if found.judge_calls else "")
    kept = f" ({found.cached} answers are there already)" if found.cached else ""
    lines = [
        f"Forecast: {calls}{kept}",
        f"  tokens in   {_whole(found.input_tokens)}",
        f"  tokens out  {_whole(found.output_tokens)}",
        f"  USD         {found.usd.likely:.6f} ({found.usd.least:.6f} to {found.usd.most:.6f})",
    ]
    if found.unpriced:
        lines[-1] += f", without {', '.join(found.unpriced)}, whose price nobody knows"
    return "\n".join(lines)


def _whole(found: Range) -> str:
    return f"{found.likely:,.0f} ({found.least:,.0f} to {found.most:,.0f})"


def _progress() -> Callable[[Progress], None]:
    """What prints progress: over itself in a terminal, else a line now and then."""
    over, said = sys.stderr.isatty(), [time.monotonic(), -1.0]

    def tell(found: Progress) -> None:
        over_now = found.done == found.total
        if not over and not over_now and time.monotonic() - said[0] < _BETWEEN:
            return
        if not over and said[1] == found.done:
            return
        said[:] = [time.monotonic(), found.done]
        parts = [f"{found.done}/{found.total}", f"{found.rate:.1f}/s", f"{found.usd:.6f} USD"]
        if found.usd_in_all is not None and not over_now:
            parts[-1] += f" of about {found.usd_in_all:.6f}"
        parts += [f"{found.cached} kept from before"] if found.cached else []
        parts += [f"{found.failed} failed"] if found.failed else []
        parts += [f"{_time(found.left)} left"] if found.left and not over_now else []
        line = ", ".join(parts)
        click.echo(f"\r\033[K{line}" if over else line, nl=not over or over_now, err=True)

    return tell


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
