"""Ten prompts that no single specialist can answer, and made-up specialists for want of real ones.

Written for this benchmark; none comes from a data set.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Composite:
    """A prompt and the domains that it is about, in their order."""

    domains: tuple[str, ...]
    text: str


PROMPTS = (
    Composite(
        ("math", "medicine"),
        "Tom buys 3 boxes of 24 tablets and takes 6 tablets each day. How many days do they last "
        "him? Then tell me, what are the symptoms of an overdose of paracetamol, and how is it "
        "treated?",
    ),
    Composite(
        ("medicine", "law"),
        "What are the side effects of ibuprofen in patients with kidney disease? Based on that "
        "answer, must a court find a doctor negligent who did not warn of the risks? What does "
        "the plaintiff have to prove?",
    ),
    Composite(
        ("computing", "math"),
        "Write a Python function that returns the greatest common divisor of two integers. Using "
        "that, Tom has 84 red marbles and 36 blue ones and fills equal bags without any left "
        "over; how many bags are there at most?",
    ),
    Composite(
        ("science", "economics_history"),
        "Why does burning coal set free so much energy, seen from its molecules? How did the "
        "price of coal change the economy of England during the industrial revolution?",
    ),
    Composite(
        ("law", "economics_history"),
        "Does a clause that forbids an employee to work for a competitor hold in court? Now for "
        "something else: how did the interest rates of the central bank affect inflation and "
        "unemployment in the United States around 1980?",
    ),
    Composite(
        ("psychology", "medicine"),
        "What is the difference between classical and operant conditioning in learning? "
        "Separately, which drugs are used to treat patients with panic disorder, and what are "
        "their side effects?",
    ),
    Composite(
        ("math", "computing", "law"),
        "A shop sells 350 licences for 12 dollars each and gives a discount of 20 percent on half "
        "of them; how much does it earn? Then write a Python function that calculates the result "
        "for any number of licences. Does a licence agreement grant the licensee a right to "
        "resell the software?",
    ),
    Composite(
        ("science", "math", "medicine"),
        "What happens to the pressure of a gas when its temperature rises in a closed container? "
        "A tank holds 12 litres of gas and loses 2 litres each hour; after how many hours is it "
        "empty? Finally, what are the symptoms of carbon monoxide poisoning?",
    ),
    Composite(
        ("economics_history", "psychology"),
        "What were the economic causes of the Great Depression of 1929? Then explain why people "
        "in a crowd conform to the behaviour of others, according to social psychology.",
    ),
    Composite(
        ("computing", "science"),
        "Write a Python function that converts a temperature from Celsius to Kelvin. Using this "
        "result, how does the pressure of an ideal gas depend on its temperature in Kelvin?",
    ),
)

SUBJECTS = {
    "math": (
        "Arithmetic word problems, step by step to a number",
        "Tom has 12 apples and buys 3 bags of 8 more. How many apples does he have?",
        "A train travels 60 miles each hour for 4 hours. How far does it get?",
        "A shirt costs 40 dollars and is 25 percent off. What does it cost now?",
        "Five workers earn 18 dollars each hour. What do they earn together in 6 hours?",
        "A tank holds 90 litres and loses 3 litres each minute. When is it empty?",
        "A box has 84 red marbles and 36 blue ones. How many bags of equal size are there?",
    ),
    "medicine": (
        "Diseases, symptoms, treatments and drugs",
        "What are the symptoms of type 2 diabetes?",
        "How is high blood pressure treated?",
        "What are the side effects of ibuprofen?",
        "Which drugs are used for depression, and what are their side effects?",
        "What are the signs of poisoning by carbon monoxide?",
    ),
    "law": (
        "Contracts, court rulings, statutes and legal rights",
        "Is a verbal agreement a binding contract?",
        "Does this clause limit the liability of the seller?",
        "What must a plaintiff prove to win a negligence case?",
        "Can a company forbid a former employee to work for a competitor?",
        "Does the agreement grant the licensee a right to resell?",
    ),
    "computing": (
        "Python functions and programs",
        "Write a function to find the largest number in a list.",
        "Write a Python function that reverses a string.",
        "Write a function to check whether a number is prime.",
        "Write a Python function that converts a list of temperatures.",
    ),
    "science": (
        "Physics and chemistry",
        "What happens to the volume of a gas when it is heated at constant pressure?",
        "Which of these molecules has a hydrogen bond?",
        "How does the energy of a photon depend on its wavelength?",
        "Why does ice float on water?",
    ),
    "economics_history": (
        "Economics and history",
        "What does a rise of interest rates do to investment and inflation?",
        "What were the causes of the French Revolution?",
        "How did the industrial revolution change the economy of England?",
        "What does a minimum wage do to unemployment?",
    ),
    "psychology": (
        "Psychology of learning, groups, development and mind",
        "What did Pavlov show about conditioning?",
        "Why do people conform to the behaviour of a group?",
        "What is cognitive dissonance?",
        "At which age do children develop object permanence, according to Piaget?",
    ),
}
"""Description, then examples: what made-up specialists say of themselves."""
