import pytest
from all_mutations import ALL
from judge import judge


def test_no_two_mutations_have_one_name_and_all_allow_something_less_than_everything():
    assert len({case.name for case in ALL}) == len(ALL) >= 200
    assert all(case.may for case in ALL)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_mutated_file_is_read_right_or_a_line_says_what_is_not(case, tmp_path):
    outcome = judge(case, tmp_path)
    assert outcome in case.may or outcome == "right"
