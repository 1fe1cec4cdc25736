"""Labels of contrasts and patients: independent of the order of the files."""

from hypothesis import given
from hypothesis import strategies as st

from lumbar.pipeline.dicom.contrast import Contrast, Patient, part_by_contrast, part_by_patient
from lumbar.pipeline.dicom.identity import SUFFIX, shared_uid, split_ids

texts = st.sampled_from(["", "t1", "t2", "stir"])


times = st.sampled_from([None, 9.8, 10.0, 100.0, 101.0])


contrasts = st.builds(Contrast, texts, st.sampled_from(["", "water", "fat"]), times, times, times)


@given(st.lists(contrasts, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_labels_do_not_depend_on_the_order_of_the_files(found, random):
    labels = part_by_contrast(found)
    order = list(range(len(found)))
    random.shuffle(order)
    shuffled = part_by_contrast([found[i] for i in order])
    assert shuffled == [labels[i] for i in order]
    ids = split_ids("1.2.3", labels)
    assert split_ids("1.2.3", shuffled) == [ids[i] for i in order]
    assert "1.2.3" in ids
    assert {shared_uid(one) for one in ids} == {"1.2.3"}
    assert all(SUFFIX.search(one) for one in ids if one != "1.2.3")
    assert len(set(ids)) == len(set(labels))


@given(st.lists(contrasts, min_size=2, max_size=20))
def test_files_of_one_label_agree(found):
    labels = part_by_contrast(found)
    for label in set(labels):
        members = [c for c, one in zip(found, labels, strict=True) if one == label]
        assert len({c.description for c in members} - {""}) <= 1
        assert len({c.component for c in members}) == 1


def test_who_names_nobody_is_one_patient_of_two_at_most():
    both = [Patient("a", ""), Patient("b", ""), Patient("", "")]
    assert len(set(part_by_patient(both))) == 3
    assert set(part_by_patient(both[::2])) == {""}
