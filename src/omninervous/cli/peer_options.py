"""`--endpoint`, `--psk-file` and `--allowed-ips` belong to the `--peer` before them, as with `wg set`.

With one `--peer` the order does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rich_click as click
from rich.text import Text

from omninervous.errors import UserError
from omninervous.ganglion.config import PeerOptions

__all__ = ["PeerCommand", "peers_in_order"]

_ORDER = "omninervous.option-order"
_OF_A_PEER = ("endpoint", "psk_file", "allowed_ips")

Group = dict[str, list[str]]
"""The values of one peer's options, by option."""


class PeerCommand(click.RichCommand):
    """A command that remembers the order of its options, and refuses what is given twice but has one value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; the order of the options goes to the context's `meta`."""
        _, _, parameters = self.make_parser(ctx).parse_args(list(args))
        order = [str(each.name) for each in parameters]
        for each in parameters:
            single = isinstance(each, click.Option) and not each.multiple and not each.is_flag
            if single and order.count(str(each.name)) > 1:
                raise UserError(f"{each.opts[0]} is given twice: leave one out")
        ctx.meta[_ORDER] = order
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.RichContext, formatter: click.RichHelpFormatter) -> None:  # type: ignore[override]
        """The epilog as it is written: rich-click would join the lines of the examples."""
        formatter.write(Text(self.epilog or ""))


def peers_in_order(ctx: click.Context, given: Mapping[str, Sequence[str]]) -> tuple[PeerOptions, ...]:
    """The peers, each with what belongs to it. `given` holds the values of --peer and of its options."""
    groups: list[Group] = []
    early: Group = {}
    values = {name: iter(given[name]) for name in ("peer", *_OF_A_PEER)}
    for name in ctx.meta[_ORDER]:
        if name == "peer":
            groups.append({name: [next(values[name])]})
        elif name in _OF_A_PEER:
            (groups[-1] if groups else early).setdefault(name, []).append(next(values[name]))
    if early:
        option = _option(next(iter(early)))
        if not groups:
            raise UserError(f"{option} belongs to a peer: give --peer KEY with it")
        if len(groups) > 1:
            raise UserError(f"{option} comes before the first --peer: write it behind the --peer it belongs to")
        for name, texts in early.items():
            groups[0][name] = texts + groups[0].get(name, [])
    return tuple(_peer(group) for group in groups)


def _peer(group: Group) -> PeerOptions:
    for name in ("endpoint", "psk_file"):
        if len(group.get(name, [])) > 1:
            raise UserError(f"{_option(name)} is given twice for one --peer: leave one out")
    return PeerOptions(
        key=group["peer"][0],
        endpoint=next(iter(group.get("endpoint", [])), None),
        psk_file=next(iter(group.get("psk_file", [])), None),
        allowed_ips=tuple(group.get("allowed_ips", [])),
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
