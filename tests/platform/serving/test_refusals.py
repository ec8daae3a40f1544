"""What declines is a refusal, in any of the languages; what says no, or answers after all, is none."""

import pytest

from watchkeeper.serving.refusals import declines, refuses

REFUSALS = """
I'm sorry, but I can't help with that.
I don't know.
I’m not sure, the sources do not say.
The provided context does not mention parental leave.
There is no information about this in the handbook.
As an AI language model, I cannot provide medical advice. Please consult a doctor.
I am unable to answer this question based on the documents.
Unfortunately, I don't have access to your account. Could you tell me the number?
I must respectfully decline.
I cannot create images. However, you can use a drawing program for that.
Das weiß ich leider nicht.
Es tut mir leid, aber dabei kann ich Ihnen nicht helfen.
In den Quellen ist dazu nichts angegeben.
Dazu liegen mir keine Informationen vor.
Je ne sais pas.
Je suis désolé, mais je ne peux pas répondre à cette question.
Les documents ne mentionnent pas ce sujet.
Je n'ai pas accès à ces informations.
Lo siento, pero no puedo ayudarte con eso.
No lo sé.
No tengo información sobre ese tema.
El documento no menciona las vacaciones.
Mi dispiace, ma non posso rispondere a questa domanda.
Non lo so.
Non ho informazioni su questo argomento.
Desculpe, mas não posso ajudar com isso.
Não sei.
Não tenho acesso a essas informações.
Sorry, dat kan ik niet beantwoorden.
Ik weet het niet.
Daar heb ik helaas geen informatie over.
De bronnen vermelden hier niets over.
Jag vet inte.
Nie wiem.
抱歉，我无法回答这个问题。
申し訳ありませんが、お答えできません。
"""
ANSWERS = """
No, employees cannot carry leave over to the next year.
No. You can't bring dogs into the office.
You do not need a receipt below 25 euros.
We cannot ship to Norway.
The policy does not allow overtime without approval.
I can't stress enough how important backups are.
As an AI, I don't have preferences, but here are three popular colours: blue, green and red.
I cannot draw. Here is a description instead: a red circle on a white field.
Nein, Sie können den Urlaub nicht übertragen.
Wir liefern nicht nach Norwegen.
Non, les chiens ne sont pas autorisés au bureau.
No, los empleados no pueden llevar perros.
El agua no es potable.
No, non è possibile portare cani in ufficio.
Não, os cães não são permitidos.
Nee, honden mogen niet mee naar kantoor.
Sorry for the delay: your order leaves tomorrow.
I'm sorry to hear that you are unwell. Rest and drink a lot.
"I can't believe it's already December!"
Expenses above 500 euros need approval. I am not sure about travel.
It is not possible to divide by zero.
Unfortunately the office is closed on Monday.
42
"""


@pytest.mark.parametrize("text", REFUSALS.strip().splitlines())
def test_what_declines_or_does_not_know_is_a_refusal(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize("text", ANSWERS.strip().splitlines())
def test_a_no_is_an_answer(text: str) -> None:
    assert not refuses(text)


def test_who_says_much_after_declining_has_answered() -> None:
    declined = "I cannot be certain about this. "
    assert refuses(declined + "Ask your team. " * 5)
    assert not refuses(declined + "Leave is thirty days a year for all who work full time. " * 6)
    assert not refuses(declined + "However, " + "leave is thirty days a year for all who work full time. " * 3)


def test_a_sentence_declines_also_with_a_typographers_apostrophe() -> None:
    assert declines("I don’t know.")
    assert not declines("I know.")
