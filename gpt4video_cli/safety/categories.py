"""The kinds of content that guards look for, in the words of a refusal.

The paper (arXiv 2311.16511, section 3.3) filters for what is sexual or severely toxic; these seven cover what it shows
and what guards of the hub can tell apart. A guard scores those that it knows, by these names.
"""

from __future__ import annotations

SEXUAL, MINORS, VIOLENCE, HATE = "sexual", "minors", "violence", "hate"
SELF_HARM, THREATS, DECEPTION = "self-harm", "threats", "deception"

CATEGORIES: dict[str, str] = {
    SEXUAL: "sexually explicit content",
    MINORS: "sexual content that involves minors",
    VIOLENCE: "graphic violence or gore",
    HATE: "hatred against people for what they are",
    SELF_HARM: "suicide or self-harm",
    THREATS: "threats or harm that is meant for someone",
    DECEPTION: "real people shown without their consent, or to deceive",
}
"""Category -> what it is, as a refusal says it: "it looks like ..."."""
