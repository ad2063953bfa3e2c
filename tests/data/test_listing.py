"""Which files are images: all that look like one are read or counted aloud, and nothing else."""

import unicodedata

import pytest

from cfx.core.errors import CfxWarning, InputError
from cfx.data.listing import find, listed, walked


def test_files_are_found_with_and_without_their_suffix_the_exact_name_first(tmp_path):
    for name in ("a", "a.png", "b.jpg", "b.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find(tmp_path, ["a", "b", "sub/c", "b.jpg"], [".png", ".jpg"], "path")
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a", "b.png", "sub/c.png", "b.jpg"]
    with pytest.raises(InputError, match=r"path: no file in .* for d, e \(tried the suffixes .png\)"):
        find(tmp_path, ["d", "a", "e"], [".png"], "path")
    with pytest.raises(InputError, match="path: expected a folder, found none"):
        find(tmp_path / "none", [], [], "path")


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def ends(*suffixes):
    return (".png", ".jpg", *suffixes)


@pytest.mark.parametrize(
    "left",
    [
        ".ipynb_checkpoints/a-checkpoint.png",
        "AD/.hidden/b.png",
        "@eaDir/AD/a.png",
        "AD/.a.png",
        "#recycle/c.jpg",
        "Thumbnails/a.png",
        "AD/thumbs/a.png",
        "~snapshot/AD/a.png",
    ],
)
def test_what_programs_leave_behind_is_counted_and_no_class(tmp_path, left):
    touched(tmp_path, "AD/a.png", "CN/b.png", left)
    with pytest.warns(CfxWarning, match=f"1 images not read, since they are hidden: {left}"):
        found = walked(tmp_path, ends(), ())
    assert (found.ids, found.y.tolist(), found.classes) == (("AD/a.png", "CN/b.png"), [0, 1], ("AD", "CN"))


@pytest.mark.parametrize("left", ["__MACOSX/AD/._a.png", "AD/._a.png", "AD/Thumbs.db", ".DS_Store", "AD/.DS_Store",
                                  "README", "notes.txt", "AD/desktop.ini", ".git/HEAD", "labels.csv"])  # fmt: skip
def test_what_is_no_image_is_passed_over_in_silence(tmp_path, left):
    touched(tmp_path, "AD/a.png", "CN/b.png", left)
    assert walked(tmp_path, ends(), ()).ids == ("AD/a.png", "CN/b.png")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["AD/a.dcm"] + [f"CN/{i}.gif" for i in range(4)], "5 files not read: 1 .dcm, 4 .gif"),
        (["AD/IM0001"], "1 files not read: 1 without suffix"),
        (["AD/a.nii.gz", "AD/b.npy"], "2 files not read: 1 .nii.gz, 1 .npy"),
    ],
)
def test_what_may_be_an_image_and_is_not_read_is_counted(tmp_path, files, said):
    touched(tmp_path, "AD/a.png", "CN/b.JPG", *files)
    with pytest.warns(CfxWarning, match=said):
        assert walked(tmp_path, ends(), ()).ids == ("AD/a.png", "CN/b.JPG")


def test_folders_that_are_numbers_are_these_classes(tmp_path):
    found = walked(touched(tmp_path, *(f"{k}/a.png" for k in range(11))), ends(), ())
    assert [name.split("/")[0] for name in found.ids] == [str(k) for k in found.y.tolist()]
    assert found.classes == ()


def test_a_folder_called_none_is_a_class_and_one_called_nan_is_not(tmp_path):
    found = walked(touched(tmp_path / "a", "none/a.png", "mild/b.png"), ends(), ())
    assert (found.y.tolist(), found.classes) == ([0, 1], ("mild", "none"))
    with pytest.raises(InputError, match=r"subfolders of .*: no label in row 2 \('nan'\)"):
        walked(touched(tmp_path / "b", "CN/a.png", "nan/b.png"), ends(), ())


def test_splits_are_no_classes_and_classes_have_images(tmp_path):
    with pytest.raises(InputError, match=r"the subfolders test, train .* are splits .* such as .*/test"):
        walked(touched(tmp_path / "a", "train/AD/1.png", "test/AD/2.png"), ends(), ())
    (touched(tmp_path / "b", "AD/1.png", "CN/2.png") / "MCI").mkdir()
    with pytest.warns(CfxWarning, match="no image in the subfolders MCI"):
        walked(tmp_path / "b", ends(), ())


def test_links_are_followed_and_circles_are_not(tmp_path):
    touched(tmp_path / "elsewhere", "a.png")
    touched(tmp_path / "data", "CN/b.png")
    (tmp_path / "data" / "AD").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "CN" / "up").symlink_to(tmp_path / "data")
    assert walked(tmp_path / "data", ends(), ()).ids == ("AD/a.png", "CN/b.png")


def test_a_folder_of_masks_among_the_images_is_none_of_them(tmp_path):
    touched(tmp_path, "a.png", "masks/a.png")
    assert walked(tmp_path, ends(), (), without=tmp_path / "masks").ids == ("a.png",)


def test_names_as_on_windows_and_names_of_one_file(tmp_path):
    touched(tmp_path, "AD/a.png", "AD/B.PNG")
    assert [f.name for f in find(tmp_path, ["AD\\a.png", "AD/B"], [".png"], "path")] == ["a.png", "B.PNG"]
    (tmp_path / "t.csv").write_text("f\nAD/a\nAD/a.png\n")
    with pytest.raises(InputError, match=r"t.csv: column 'f' names one file in several rows: .*/AD/a.png"):
        listed(tmp_path / "t.csv", tmp_path, ends(), filename="f", label=None, subject=None, classes=())


def test_a_table_says_all_that_is_known(tmp_path):
    touched(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "t.csv").write_text("f,dx,who,age\nb,CN,x,70\na,AD,x,n/a\nc,AD,y,60\n")
    found = listed(tmp_path / "t.csv", tmp_path, ends(), filename="f", label="dx", subject="who", classes=())
    assert [file.name for file in found.files] == ["b.png", "a.png", "c.png"]
    assert (found.y.tolist(), found.classes) == ([1, 0, 0], ("AD", "CN"))
    assert found.covariates.columns["subject"].tolist() == [0, 0, 1]
    assert found.covariates.columns["age"].isnan().tolist() == [False, True, False]
    (tmp_path / "t.csv").write_text("f,dx\nb,CN\na,-\n")
    with pytest.raises(InputError, match=r"t.csv: column 'dx': no label in row 2 \('-'\)"):
        listed(tmp_path / "t.csv", tmp_path, ends(), filename="f", label="dx", subject=None, classes=())


@pytest.mark.parametrize(
    ("files", "folder"),
    [(["AD/1.png", "CN/2.png", "masks/1.png"], "masks"), (["images/1.png", "Segmentations/1.png"], "Segmentations"),
     (["AD/1.png", "AD/mask/1.png", "CN/2.png"], "mask"), (["AD/1.png", "CN/1.png", "labels/1.png"], "labels"),
     (["1.png", "masks/1.png"], "masks")],
)  # fmt: skip
def test_folders_of_masks_are_no_classes(tmp_path, files, folder):
    with pytest.raises(
        InputError, match=rf"path: the subfolder {folder} of .* probably holds masks.*`masks: .*{folder}`"
    ):
        walked(touched(tmp_path, *files), ends(), ())


def test_masks_may_be_a_class_that_is_listed(tmp_path):
    touched(tmp_path, "mask/1.png", "no mask/2.png")
    assert walked(tmp_path, ends(), ("mask", "no mask")).y.tolist() == [0, 1]


BIDS = {
    "in class folders": (
        ["AD/sub-01_ses-1.png", "AD/sub-01_ses-2.png", "CN/sub-02_ses-1.png"],
        ["sub-01", "sub-01", "sub-02"],
    ),
    "who changed": (["AD/sub-1_ses-2.png", "CN/sub-1_ses-1.png", "CN/sub-2_ses-1.png"], ["sub-1", "sub-1", "sub-2"]),
    "as folders": (["AD/sub-A/ses-1/anat/T1w.png", "AD/sub-A/ses-2/anat/T1w_run-2.png"], ["sub-A", "sub-A"]),
    "without classes": (["sub-01.png", "sub-02.png"], ["sub-01", "sub-02"]),
    "numbered in each class": (["AD/sub-01.png", "CN/sub-01.png"], ["AD/sub-01", "CN/sub-01"]),
}


@pytest.mark.parametrize(("files", "whose"), BIDS.values(), ids=BIDS)
def test_names_as_bids_has_them_say_whose_an_image_is(tmp_path, files, whose):
    known = walked(touched(tmp_path, *files), ends(), ()).covariates
    assert [known.categories["subject"][int(k)] for k in known.columns["subject"]] == whose


@pytest.mark.parametrize(
    "files",
    [["AD/a.png", "CN/b.png"], ["AD/sub-01.png", "CN/b.png"], ["AD/xsub-01.png"], ["sub-/a.png", "subject-1/a.png"]],
)
def test_other_names_do_not(tmp_path, files):
    assert not walked(touched(tmp_path, *files), ends(), ()).covariates.columns


@pytest.mark.parametrize(("column", "whose"), [("", ["sub-01", "sub-01", "sub-02"]), ("subject", ["a", "b", "c"])])
def test_a_table_of_bids_names_without_a_column_of_subjects(tmp_path, column, whose):
    names = ["sub-01_ses-1.png", "sub-01_ses-2.png", "sub-02_ses-1.png"]
    touched(tmp_path, *names)
    rows = [f"{name},{k % 2},{v}" for k, (name, v) in enumerate(zip(names, "abc", strict=True))]
    (tmp_path / "t.csv").write_text("\n".join([f"filename,dx,{column or 'note'}", *rows]))
    known = listed(
        tmp_path / "t.csv", tmp_path, ends(), filename="filename", label="dx", subject=None, classes=()
    ).covariates
    assert [known.categories["subject"][int(k)] for k in known.columns["subject"]] == whose


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["\u00e4.png", "K\u00f6ln/\u00e9t\u00e9", "\u1ec7.png"])
def test_a_name_is_found_however_its_letters_are_coded(tmp_path, form, name):
    here, there = (unicodedata.normalize(f, name) for f in (form, {"NFC": "NFD", "NFD": "NFC"}[form]))
    touched(tmp_path, there if there.endswith(".png") else f"{there}.png")
    assert find(tmp_path, [here], [".png"], "path")[0].is_file()
