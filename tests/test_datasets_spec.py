"""Class tables: the official values, and a sentence with file and field for each mistake."""

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as official_labels

from configs import ConfigError
from configs.datasets import load_dataset
from configs.datasets.colours import choose

TABLE = """
name: yard
layout: folders
ignore_id: 9
label_kind: label_id
home: dig
classes:
  - {name: soil, id: 3, train_id: 1, color: [10, 20, 30]}
  - {name: sand, id: 5, train_id: 1, color: [10, 20, 31]}
  - {name: stone, id: 4, train_id: 0, color: [1, 2, 3]}
  - {name: fog, id: 200, train_id: 9, color: [0, 0, 0]}
"""


@pytest.fixture
def table(tmp_path):
    def write(old="", new=""):
        assert old in TABLE
        path = tmp_path / "yard.yaml"
        path.write_text(TABLE.replace(old, new))
        return path

    return write


def test_cityscapes_is_the_official_table():
    rows = {row.id: row for row in load_dataset("cityscapes").classes}
    official = {label.id: label for label in official_labels if label.id >= 0}
    assert rows.keys() == official.keys() == set(range(34))
    for number, label in official.items():
        row = rows[number]
        assert (row.name, row.train_id, row.category) == (label.name, label.trainId, label.category)
        assert (row.has_instances, row.color) == (label.hasInstances, label.color)


def test_voc_has_the_colour_map_of_the_development_kit():
    spec = load_dataset("voc")
    assert spec.num_classes == 21
    for row in spec.classes:
        color = [0, 0, 0]
        for bit in range(8):  # bits 0, 1, 2 of the id go to red, green, blue, highest bit first
            for channel in range(3):
                color[channel] |= (row.id >> (3 * bit + channel) & 1) << (7 - bit)
        assert row.color == tuple(color), row.name


@pytest.mark.parametrize("name, classes", [("camvid", 11), ("kitti", 2)])
def test_other_tables(name, classes):
    spec = load_dataset(name)
    assert (spec.name, spec.num_classes, spec.ignore_id) == (name, classes, 255)


def test_lookup_tables(table):
    spec = load_dataset(table())
    assert [row.name for row in spec.train_classes] == ["stone", "soil"]
    assert (spec.num_classes, spec.classes[1].name) == (2, "sand")
    expected = np.full(256, -1)
    expected[[3, 5, 4, 200, 9]] = [1, 1, 0, 9, 9]  # 9 is ignore_id, which needs no row
    np.testing.assert_array_equal(spec.label_lut, expected)
    assert spec.label_lut.dtype == np.int16
    assert spec.train_to_label[:2].tolist() == [4, 3]
    assert set(spec.train_to_label[2:]) == {200}
    assert spec.palette[:2].tolist() == [[1, 2, 3], [10, 20, 30]]
    assert spec.palette.shape == (256, 3) and not spec.palette[2:].any()


def test_label_files_with_train_ids(table):
    lut = load_dataset(table("label_id", "train_id")).label_lut
    assert (lut[0], lut[1], lut[9], lut[3], lut[200]) == (0, 1, 9, -1, -1)


@pytest.mark.parametrize("name", ["cityscapes", "camvid", "kitti", "voc"])
def test_a_dump_reads_back_as_the_same_table(name, tmp_path):
    spec = load_dataset(name)
    (tmp_path / "copy.yaml").write_text(spec.dump())
    assert load_dataset(tmp_path / "copy.yaml") == spec


def test_an_unknown_name_gets_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="'citiscapes'.*did you mean 'cityscapes'"):
        load_dataset("citiscapes")
    with pytest.raises(ConfigError, match="nowhere.yaml: cannot be read"):
        load_dataset(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("name: yard\n", "", "field 'name' is missing"),
        ("name: yard", "name: my/yard", "name: expected a word, found 'my/yard'"),
        ("id: 4,", "id: 9,", "row 3: id 9 is ignore_id, so its train_id has to be too"),
        ("ignore_id: 9", "ignore_id: nine", "ignore_id: expected int, found 'nine'"),
        ("ignore_id: 9", "ignore_id: 900", "ignore_id: expected 0..255, found 900"),
        ("label_kind: label_id", "label_kind: ids", "label_kind: expected one of label_id"),
        ("layout", "lay_out", "unknown field 'lay_out'; did you mean 'layout'?"),
        ("classes:", "classes: 3 #", "not a YAML file"),
        ("id: 4,", "id: 256,", "classes, row 3: id: expected 0..255, found 256"),
        ("id: 4,", "id: 5,", "classes, row 3: id 5 is already in row 2"),
        ("name: sand", "name: soil", "classes, row 2: name soil is already in row 1"),
        ("train_id: 0", "train_id: 2", "no row has 0"),
        ("train_id: 0", "train_id: zero", "classes, row 3: train_id: expected int, found 'zero'"),
        ("[1, 2, 3]", "[1, 2]", "classes, row 3: color: expected .*found .1, 2."),
        ("[1, 2, 3]", "[1, 2, 300]", "classes, row 3: color: expected .*300"),
        ("name: stone, ", "", "classes, row 3: field 'name' is missing"),
        ("name: stone", "name: no", "classes, row 3: name: expected str, found False"),
        (
            "{name: sand, id: 5, train_id: 1, color: [10, 20, 31]}",
            "[sand]",
            "row 2: expected the fields",
        ),
    ],
)
def test_a_wrong_table_names_file_and_field(table, old, new, message):
    with pytest.raises(ConfigError, match=f"yard.yaml: .*{message}"):
        load_dataset(table(old, new))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: 2001-99-99", "month must be in 1..12"),
        ("[" * 100_000, "nested deeper than 20"),
        ("a: &a [1, 1]\nb: &b [*a, *a]\nname: *b", "line 2: aliases"),
        ("name: {x: " * 30 + "}" * 30, "nested deeper|not a YAML"),
        ("name: a\0b", "line 1: .*NUL"),
        ("name: a\nhome: !!timestamp foo", "line 2: tags .'tag:yaml.org,2002:timestamp'. are"),
        ("!!python/object/apply:os.system [ls]", "line 1: tags .'tag:yaml.org,2002:python/object"),
        ('name: "\\UFFFFFFFF"', "a value that cannot be read"),
    ],
)
def test_a_hostile_table_gets_a_sentence_at_once(tmp_path, content, message):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ConfigError, match=rf"x\.yaml: .*({message})") as caught:
        load_dataset(tmp_path / "x.yaml")
    assert len(str(caught.value)) < 500


def test_a_table_of_names_alone_counts_up_and_chooses_colours(tmp_path):
    (tmp_path / "mine.yaml").write_text("\ufeffname: mine\r\nclasses: [road, car, sky]\r\n")
    spec = load_dataset(tmp_path / "mine.yaml")
    assert [(row.name, row.id, row.train_id) for row in spec.classes] == [
        ("road", 0, 0), ("car", 1, 1), ("sky", 2, 2),
    ]  # fmt: skip
    assert (spec.layout, spec.ignore_id, spec.label_kind, spec.home) == (
        "folders", 255, "label_id", "",
    )  # fmt: skip
    assert np.flatnonzero(spec.label_lut >= 0).tolist() == [0, 1, 2, 255]


def test_ids_and_train_ids_go_on_from_the_row_before(tmp_path):
    rows = "[{name: void, id: 255}, {name: a, id: 7}, b, {name: c, color: [255, 0, 0]}]"
    (tmp_path / "t.yaml").write_text(f"name: t\nclasses: {rows}\n")
    spec = load_dataset(tmp_path / "t.yaml")
    assert [(row.id, row.train_id) for row in spec.classes] == [(255, 255), (7, 0), (8, 1), (9, 2)]
    assert spec.classes[3].color == (255, 0, 0)


@pytest.mark.parametrize(
    ("ignore_id", "rows", "message"),
    [
        (2, "[road, car, sky, tree]", "row 3: it has no id and counts up to 2, which is ignore_id"),
        (1, "[{name: a, id: 7}, b, c]", "row 2: it has no train_id and counts up to 1, which"),
        (0, "[{name: void, id: 0}, a, b]", "row 2: it has no train_id and counts up to 0, which"),
    ],
)
def test_no_class_is_lost_where_the_numbers_reach_ignore_id(tmp_path, ignore_id, rows, message):
    file = tmp_path / "t.yaml"
    file.write_text(f"name: t\nignore_id: {ignore_id}\nclasses: {rows}\n")
    with pytest.raises(ConfigError, match=f"t.yaml: classes, {message}"):
        load_dataset(file)
    file.write_text("name: t\nignore_id: 2\nclasses: [a, b, {name: void, id: 2}]\n")
    assert [row.train_id for row in load_dataset(file).classes] == [0, 1, 2]
    assert load_dataset(file).num_classes == 2


def test_chosen_colours_are_well_apart():
    chosen = choose(30, [(255, 0, 0)])
    for number, color in enumerate(chosen):
        others = [(0, 0, 0), (255, 255, 255), (255, 0, 0), *chosen[:number]]
        assert min(max(abs(a - b) for a, b in zip(color, o)) for o in others) >= 51


def test_cityscapes_labels_with_its_ignore_id_hold_train_ids():
    assert load_dataset("cityscapes").label_lut[255] == -1
    assert load_dataset("camvid").label_lut[255] == 255
