"""Every command and every option in the README and in docs/ works, or says why no test runs it."""

import re
from pathlib import Path

import pytest
from given_files import GIVEN
from page_blocks import RUN, Block, PageFault, Reader, commands, given, pages, platelayer_words, read_blocks

from flows.cli import app
from flows.jobs import SegmentJob, TrainJob, WatchJob, job, with_settings
from pipeline.errors import BadArgument

ROOT = Path(__file__).parents[2]
PAGES = pages(ROOT)
BLOCKS = [block for name, text in PAGES.items() for block in read_blocks(name, text)]
LANGUAGES = {*RUN, "text", "toml", "csv", "diff"}
FOREIGN = {
    "dask worker": {"--resources", "--nthreads", "--memory-limit"},
    "prefect": {"--name"},
    "pip": {"--no-deps"},
}
"""Options of other programs that the pages name."""


def ids(block):
    return block.place


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if "```" in text])
def test_a_reader_can_follow_the_page(name, tmp_path, monkeypatch):
    for thing in given(PAGES[name]):
        GIVEN[thing](tmp_path / thing)
    monkeypatch.syspath_prepend(str(tmp_path))
    blocks = read_blocks(name, PAGES[name])
    assert len(list(Reader(tmp_path).follow(blocks))) == len(blocks)


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_a_block_names_its_language_and_a_reason_where_it_is_not_run(block):
    assert block.language in LANGUAGES, "commands are `bash`, what they print is `text`"
    assert block.reason_not_run is None or len(block.reason_not_run) > 10, "say why it is not run"
    hidden = [line for line in block.text.splitlines() if re.match(r"[$>]? *platelayer [a-z-]+( |$)", line)]
    assert block.language in ("bash", "toml") or not hidden, "commands belong in a block of `bash`"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "bash" and b.reason_not_run], ids=ids)
def test_commands_that_are_not_run_have_options_that_exist(block):
    for line in commands(block):
        words = platelayer_words(line)
        if words is not None:
            app.parse_args(words, exit_on_error=False, print_error=False)


def options_of(place):
    """The options of a command and of all commands below it."""
    below = [name for name in place if not name.startswith("-")]
    if below:
        return set().union(*(options_of(place[name]) for name in below))
    return {name for argument in place.assemble_argument_collection() for name in argument.names}


OPTIONS = options_of(app) | {*app.help_flags, *app.version_flags} | set().union(*FOREIGN.values())


@pytest.mark.parametrize("name", PAGES)
def test_options_in_the_prose_exist(name):
    prose = re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)
    for span in re.findall(r"`([^`]+)`", prose):
        command = re.match(r"platelayer ([a-z-]+)", span)
        known = options_of(app[command[1]]) if command else OPTIONS
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span):
            assert option in known, f"{name}: `{span}`: no command has {option}"


def settings():
    """All `--set KEY=VALUE` of the pages, with the command they are given to."""
    for name, text in PAGES.items():
        for command, setting in re.findall(r"platelayer ([a-z-]+)[^\n`]*? --set ([\w.]+=[^\s`]+)", text):
            yield pytest.param(command, setting, id=f"{name}-{setting}")


@pytest.mark.parametrize(("command", "setting"), list(settings()))
def test_keys_of_jobs_exist(command, setting):
    setting = setting.strip("'\"")
    if setting.startswith("watch."):
        table = with_settings(
            {"place": "plates", "job": {"source": "plates"}}, [setting.removeprefix("watch.")]
        )
        job(WatchJob, table)
    elif command == "train":
        job(TrainJob, with_settings({"data": ("a.zarr",), "folder": "out"}, [setting]))
    else:
        job(SegmentJob, with_settings({"source": "a.zarr"}, [setting]))


def test_a_wrong_key_of_a_job_would_be_noticed():
    with pytest.raises(BadArgument, match="tilling"):
        test_keys_of_jobs_exist("segment", "tilling.core=2048")


def test_the_links_of_the_readme_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES["README.md"])
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", PAGES)
def test_files_of_the_repository_that_a_page_names_exist(name):
    named = re.findall(r"(?<![\w./])(?:flows|pipeline|model|tests|benchmarks|docs)/[\w./-]*\w", PAGES[name])
    for path in named:
        assert (ROOT / path).exists(), f"{name}: {path}"


def follow(text, folder):
    return list(Reader(folder).follow(read_blocks("page.md", text)))


def test_a_command_that_fails_is_named_with_its_line(tmp_path):
    page = "Text.\n\n```bash\nplatelayer inspect nothing.zarr\n```\n"
    with pytest.raises(
        PageFault, match=r"page.md:3: platelayer inspect nothing.zarr\nexpected exit code 0, got 1"
    ):
        follow(page, tmp_path)


def test_an_expected_exit_code_and_a_reason_are_read(tmp_path):
    page = "<!-- exit code: 1 -->\n```bash\nplatelayer inspect nothing.zarr\n```\n<!-- not run: no such machine -->\n"
    blocks = [block for block, _ in follow(page + "```bash\nfly\n```\n", tmp_path)]
    assert [block.exit_code for block in blocks] == [1, 0]
    assert [block.reason_not_run for block in blocks] == [None, "no such machine"]


def test_output_is_compared_up_to_numbers_and_blanks(tmp_path):
    page = '```python title="a.py"\nprint("took 3.5  s")\nprint("done")\n```\n\n```bash\npython a.py\n```\n\n'
    assert follow(page + "```text\ntook 11 s\n...\n```\n", tmp_path)[1][1] == "took 3.5  s\ndone\n"
    with pytest.raises(PageFault, match=r"page.md:10: expected these lines:\nwent 11 s"):
        follow(page + "```text\nwent 11 s\n```\n", tmp_path)


def test_a_redirection_writes_standard_output_alone(tmp_path):
    follow("```bash\nplatelayer segment --example > job.toml\n```\n", tmp_path)
    assert (tmp_path / "job.toml").read_text().startswith("# OME-Zarr image or plate")


def test_words_of_a_command_leave_out_what_is_the_shell_s():
    assert platelayer_words("A=1 platelayer table 'a b.zarr' > out.csv") == ["table", "a b.zarr"]
    assert platelayer_words("prefect server start") is None
    block = Block("page.md", 1, "bash", "one --a \\\n    --b   # comment\n# all comment\ntwo\n")
    assert commands(block) == ["one --a --b", "two"]
