"""The tables of `docs/serialization.md`, and the same tables of its Chinese translation, from the results."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from benchmarks.paths import REPOSITORY
from benchmarks.serialization.catalogue import FORMATS, LANGUAGES, Format, Language, Text
from benchmarks.serialization.damage import Damage
from benchmarks.serialization.results import Attempt, Figures, Results

DOCS = REPOSITORY / "docs"
PAGES: dict[Language, Path] = {"en": DOCS / "serialization.md", "zh": DOCS / "serialization.zh.md"}
RESULTS = DOCS / "benchmarks" / "serialization.json"
PLOT = DOCS / "benchmarks" / "serialization.png"

_MEGABYTE = 1e6
_IDLE_PERCENT = 5  # of the processor, used by others, is what a quiet machine needs for itself
_NOTHING = "-"
_FORMAT = Text("format", "保存方式")
_YES, _NO = Text("yes", "是"), Text("no", "否")

# Takes the format and its figures.
_Cell = Callable[[Format, Figures], Text]
_Columns = Sequence[tuple[Text, _Cell]]


def write(results: Results) -> None:
    """Put the tables into the pages of both languages."""
    for language in LANGUAGES:
        path = PAGES[language]
        path.write_text(with_blocks(path.read_text(), blocks(results, language)))


def blocks(results: Results, language: Language) -> dict[str, str]:
    """Return the measured parts of a page by their names."""
    made = {
        "setting": getattr(_setting(results), language),
        "summary": getattr(_summary(results), language),
        "versions": _versions(results, language),
    }
    return made | {name: _table(results, columns, language) for name, columns in _TABLES.items()}


def with_blocks(page: str, made: dict[str, str]) -> str:
    """Return ``page`` with each block between its two comments.

    Raises:
        LookupError: The page lacks a block, or has one that nothing makes.

    """
    found = re.findall(r"^<!-- measured: (\w+) -->$", page, re.MULTILINE)
    if sorted(found) != sorted(made):
        raise LookupError(f"the page has the blocks {sorted(found)}, and there are {sorted(made)}")
    for name, content in made.items():
        begin, end = f"<!-- measured: {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found_end:
            raise LookupError(f"the block {name} has no end")
        page = f"{before}{begin}\n{content}\n\n{end}{after}"
    return page


def _setting(results: Results) -> Text:
    machine, settings, versions = results.machine, results.settings, results.versions
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
    random = settings["weights"] == "random"
    busy = settings["others_percent"] > _IDLE_PERCENT
    return Text(
        f"Measured on {results.date} on {machine['cores']} cores of {machine['processor']} "
        f"({machine['instructions']}), with {settings['threads']} threads, in {settings['rounds']} rounds of "
        f"{settings['runs']} answers. "
        + (
            "The weights are random, and batch norms have the statistics of images: speed, size and safety do not "
            "depend on the values, but how often INT8 and BF16 agree with the original does. "
            if random
            else "The weights are those of a given checkpoint. "
        )
        + f"INT8 was calibrated with {settings['calibration']} crops of {settings['photographs']} photographs; answers "
        f"are compared on {settings['images']} other images. "
        + (
            f"**Other processes used {settings['others_percent']} % of the processor when the run began.** "
            if busy
            else ""
        )
        + f"Versions: {libraries}.",
        f"测量日期 {results.date}，{machine['cores']} 核 {machine['processor']}（{machine['instructions']}），"
        f"{settings['threads']} 线程，共 {settings['rounds']} 轮，每轮 {settings['runs']} 次推理。"
        + (
            "权重是随机的，批归一化的统计量来自真实图像：速度、体积和安全性与权重的取值无关，"
            "但 INT8 和 BF16 与原模型的一致程度与之有关。"
            if random
            else "权重来自给定的检查点。"
        )
        + f"INT8 用 {settings['calibration']} 张裁剪图校准（取自 {settings['photographs']} 张照片），"
        f"结果在另外 {settings['images']} 张图像上比较。"
        + (f"**测量开始时，其他进程占用了 {settings['others_percent']} % 的处理器。**" if busy else "")
        + f"版本：{libraries}。",
    )


def _summary(results: Results) -> Text:
    """Return the ratios that the text relies on."""
    formats = results.formats
    if not {"state_dict", "safetensors", "int8"} <= formats.keys():
        return Text(_NOTHING, _NOTHING)
    base = formats["state_dict"]

    def shares(name: str) -> tuple[str, ...]:
        one = formats[name]
        pairs = (
            (one.bytes, base.bytes),
            (one.to_answer, base.to_answer),
            (one.memory, base.memory),
            (one.latency, base.latency),
        )
        return tuple(f"{100 * value / reference:.0f} %" for value, reference in pairs)

    size, start, memory, latency = shares("int8")
    _, safe_start, safe_memory, safe_latency = shares("safetensors")
    return Text(
        f"Relative to a bare `state_dict` in PyTorch, our INT8 export takes {size} of the disk space, {start} of the "
        f"time from the start of the process to the first answer, {memory} of the memory and {latency} of the time of "
        f"one image. Our `.safetensors` checkpoint, served as it is, takes {safe_start} of the time to the first "
        f"answer, {safe_memory} of the memory and {safe_latency} of the time of one image.",
        f"以 PyTorch 加载单独的 `state_dict` 为基准，本服务导出的 INT8 模型，磁盘占用为 {size}，"
        f"从进程启动到首个结果的时间为 {start}，内存为 {memory}，单张图像的推理时间为 {latency}。"
        f"直接用 `.safetensors` 检查点提供服务，首个结果的时间为 {safe_start}，内存为 {safe_memory}，"
        f"单张图像的推理时间为 {safe_latency}。",
    )


def _versions(results: Results, language: Language) -> str:
    others = sorted({number for one in results.formats.values() for number in one.older}, key=_version_key)
    if not others:
        return str(getattr(Text("Not measured in this run.", "本次未测量。"), language))
    new = results.versions["torch"].partition("+")[0]
    columns = [
        column
        for old in others
        for column in (
            (Text(f"written by {old}, read by {new}", f"{old} 写，{new} 读"), _read(old, "older")),
            (Text(f"written by {new}, read by {old}", f"{new} 写，{old} 读"), _read(old, "newer")),
        )
    ]
    return _table(results, columns, language, lambda figures: bool(figures.older))


def _read(number: str, file: Literal["older", "newer"]) -> _Cell:
    return lambda _, figures: _other(getattr(figures, file).get(number))


def _version_key(number: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", number)]


def _table(
    results: Results, columns: _Columns, language: Language, shown: Callable[[Figures], bool] = lambda _: True
) -> str:
    head = [getattr(text, language) for text in (_FORMAT, *(title for title, _ in columns))]
    rows = _rows(results, columns, language, shown)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _rows(
    results: Results, columns: _Columns, language: Language, shown: Callable[[Figures], bool]
) -> Iterator[list[str]]:
    for one in FORMATS:
        if one.name in results.formats and shown(results.formats[one.name]):
            texts = (one.title, *(cell(one, results.formats[one.name]) for _, cell in columns))
            yield [getattr(text, language) for text in texts]


def _same(text: str) -> Text:
    return Text(text, text)


def _answer(value: bool) -> Text:
    return _YES if value else _NO


def _damage(found: Damage) -> Text:
    silent = found.copies - found.noticed - found.harmless
    return Text(
        f"{found.noticed} of {found.copies}" + (f"; {silent} with other answers" if silent else ""),
        f"{found.noticed}/{found.copies}" + (f"；{silent} 个结果改变" if silent else ""),
    )


def _canary(found: Attempt | None) -> Text:
    if found is None:
        return _same(_NOTHING)
    if found.ran:
        return Text("**code ran**", "**代码被执行**")
    return Text("refused", "拒绝加载") if found.error else Text("loaded, no code ran", "已加载，代码未执行")


def _runs_code(one: Format, figures: Figures) -> Text:
    if figures.canary[one.loader].ran:
        return Text("**yes**", "**是**")
    if not one.ours and "careless" in figures.canary and figures.canary["careless"].ran:
        return Text("with `weights_only=False`", "仅当 `weights_only=False`")
    return _NO


def _other(found: str | None) -> Text:
    if found is None:
        return _same(_NOTHING)
    if found == "same":
        return _YES
    return Text("other answers", "结果不同") if found == "different" else Text(f"no ({found})", f"否（{found}）")


_TABLES: dict[str, _Columns] = {
    "holds": (
        (Text("loaded by", "加载方式"), lambda one, _: one.loaded_by),
        (Text("size, MB", "体积，MB"), lambda _, figures: _same(f"{figures.bytes / _MEGABYTE:.1f}")),
        (Text("needs the network's code", "需要网络的代码"), lambda _, figures: _answer(figures.needs_code)),
        (Text("needs PyTorch", "需要 PyTorch"), lambda _, figures: _answer(figures.needs_pytorch)),
        (Text("carries preprocessing", "含预处理参数"), lambda _, figures: _answer(figures.has_preprocessing)),
        (Text("names its labels", "指明类别标签"), lambda _, figures: _answer(figures.has_labels)),
        (Text("can run code when loaded", "加载时可执行代码"), _runs_code),
    ),
    "speed": (
        (
            Text("process start to first answer, s", "从进程启动到首个结果，s"),
            lambda _, figures: _same(f"{figures.to_answer:.2f}"),
        ),
        (Text("peak memory, MB", "内存峰值，MB"), lambda _, figures: _same(f"{figures.memory / _MEGABYTE:.0f}")),
        (Text("one image, ms", "单张图像，ms"), lambda _, figures: _same(f"{figures.latency:.1f}")),
        (
            Text("largest difference of a logit, relative", "logit 的最大相对差"),
            lambda _, figures: _same(f"{figures.difference:.0e}" if figures.difference else "0"),
        ),
        (
            Text("same first class", "首位类别相同"),
            lambda _, figures: Text(
                f"{figures.same_first} of {figures.images}", f"{figures.same_first}/{figures.images}"
            ),
        ),
    ),
    "code": (
        (Text("usual loader", "通常的加载方式"), lambda one, figures: _canary(figures.canary[one.loader])),
        (
            Text("`weights_only=False`", "`weights_only=False`"),
            lambda _, figures: _canary(figures.canary.get("careless")),
        ),
        (Text("this service", "本服务"), lambda _, figures: _canary(figures.canary["service"])),
    ),
    "damage": (
        (Text("a flipped bit in the weights", "权重中翻转一位"), lambda _, figures: _damage(figures.damage["weights"])),
        (Text("a flipped bit elsewhere", "其他位置翻转一位"), lambda _, figures: _damage(figures.damage["rest"])),
        (Text("a missing end", "文件被截断"), lambda _, figures: _damage(figures.damage["end"])),
    ),
}
