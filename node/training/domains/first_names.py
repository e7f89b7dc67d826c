"""Other first names in a word problem, the same in question and answer.

Knows names and words; must not know sets or training. A name is exchanged for one of the same
list, so that "he" and "her" still fit.
"""

import re
from collections.abc import Sequence

import numpy as np

_FEMALE = """
Alice Amanda Amelia Amy Andrea Angela Anna Anne Annie Audrey Barbara Bella Beth Betty Brenda Carla
Carol Carolyn Catherine Cecilia Christina Cindy Claire Clara Cynthia Daisy Deborah Debra Diana
Donna Dora Doris Dorothy Elaine Eleanor Elena Eliza Elizabeth Ella Ellen Elsa Emily Emma Erica
Esther Ethel Eva Evelyn Fiona Gina Gloria Gwen Hannah Heather Helen Irene Isabel Isabella Jane
Janet Janice Jasmine Jennifer Jenny Jessica Jill Joan Joanna Josephine Judy Julia Julie Karen Kate
Katherine Kathy Katie Kimberly Kylie Laura Lauren Leah Lena Linda Lisa Lucy Lydia Maggie Margaret
Maria Marie Martha Mary Maya Megan Melanie Melissa Michelle Mila Molly Monica Nancy Natalie Nicole
Nina Nora Olivia Pamela Patricia Paula Penny Rachel Rebecca Rita Rosa Ruth Sally Samantha Sandra
Sara Sarah Sharon Shirley Sofia Sophia Stella Stephanie Susan Tanya Teresa Tina Valerie Vanessa
Vera Wendy Zoe Jenna Carrie Carly Stacy Kayla Leila Brittany Tara Diane Mandy Kendra Ann Marcy
Lily Madeline Abigail Alyssa Ashley Bridget Candice Chloe Tammy Sue
"""
_MALE = """
Aaron Adam Alan Albert Alfred Allen Andrew Andy Anthony Arnold Arthur Barry Ben Benjamin Bernard
Bernie Bob Bobby Brad Brandon Brian Bruce Bryan Calvin Carl Carlos Charles Charlie Chester
Christopher Craig Daniel Darren Dave David Dennis Derek Donald Doug Douglas Dylan Earl Edgar
Edward Edwin Eric Ernest Ethan Eugene Felix Francis Fred Frederick Gary George Gerald Gilbert
Gordon Greg Harold Harry Harvey Henry Herbert Howard Hugo Ian Isaac Ivan Jack Jacob Jake James
Jared Jason Jeff Jeffrey Jeremy Jerry Jim Jimmy Joe Joel John Johnny Jonathan Jose Joseph Joshua
Juan Julian Justin Karl Keith Kenneth Kevin Kyle Larry Lawrence Leo Leonard Liam Louis Lucas Luis
Luke Marcus Mario Martin Marvin Matt Matthew Michael Mike Milton Nathan Neil Nicholas Noah Norman
Oliver Oscar Patrick Paul Peter Philip Ralph Ray Raymond Richard Rick Robert Rodney Roger Ronald
Russell Ryan Samuel Scott Sean Simon Stephen Steve Steven Stuart Ted Thomas Tim Timothy Todd Tom
Tommy Tony Travis Victor Vincent Walter Warren Wayne William Zachary Frank Billy Max Josh Randy
Ken Toby Caleb Trevor Dan Tyler Mason Rob Phil Danny Connor Bert Pete Joey Manny Timmy Sammy
Marcos Roy Freddy Malcolm Gavin
"""
_ALL = {name: names for names in (_FEMALE.split(), _MALE.split()) for name in names}
_WORD = re.compile(r"[A-Z][a-z]+(?![a-z])")
_NOT_A_PERSON = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Dr|St|Saint|King|Queen|Prince|Princess|Lake|Mount|Street|Avenue|Road"
    r"|River|County|Beach|Island|Fort)\b|\b[Ll]etters?\b|\bnames?\b|\balphabet|\bvowel|\binitials"
)


def with_other_names(
    question: str, answer: str, rng: np.random.Generator
) -> tuple[str, str] | None:
    """`question` and `answer` with each known first name exchanged for another of its list.

    None without such names, or in problems that name places, titles or letters: there a name may
    be more than a name.
    """
    text = f"{question} {answer}"
    words = set(_WORD.findall(text))
    found = sorted(words & _ALL.keys())
    if not found or _NOT_A_PERSON.search(text):
        return None
    changes: dict[str, str] = {}
    for name in found:
        changes[name] = _another(_ALL[name], words | set(changes.values()), rng)

    def new(match: re.Match[str]) -> str:
        return changes.get(match[0], match[0])

    return _WORD.sub(new, question), _WORD.sub(new, answer)


def _another(names: Sequence[str], taken: set[str], rng: np.random.Generator) -> str:
    free = [name for name in names if name not in taken]
    return free[int(rng.integers(len(free)))]
