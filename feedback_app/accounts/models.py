"""People, what they may do in which project, tokens of programs, and who did what."""

import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.utils import timezone


class UserManager(BaseUserManager["User"]):
    """People are known by their e-mail address, compared without case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_superuser=True, **fields)

    def create_service(self, *, name: str) -> "User":
        """Someone whose votes arrive through the gateway: no password, and never signs in."""
        address = f"{uuid.uuid4().hex}@service.invalid"  # RFC 2606: no mail ever gets there
        return self.create_user(address, None, name=name[:100], is_active=False)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=(username or "").lower())


class User(AbstractBaseUser, PermissionsMixin):
    """One person. Deactivated people are signed out and never let in."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=100, blank=True)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = UserManager()

    def __str__(self) -> str:
        return self.name or self.email

    @property
    def initials(self) -> str:
        """One or two letters for the round badge."""
        words = (self.name or self.email).replace(".", " ").split()
        return "".join(word[0] for word in words[:2]).upper()


class Role(models.TextChoices):
    """What a person may do in a project; each role may do what the ones below it may."""

    OWNER = "owner", "Owner"
    ADMIN = "admin", "Admin"
    ANNOTATOR = "annotator", "Annotator"
    VIEWER = "viewer", "Viewer"


#: From most to least; `roles_from(Role.ADMIN)` are the roles that may do what admins may.
ROLE_ORDER = [Role.OWNER, Role.ADMIN, Role.ANNOTATOR, Role.VIEWER]


def roles_from(least: Role) -> list[Role]:
    """The roles that include `least`."""
    return ROLE_ORDER[: ROLE_ORDER.index(least) + 1]


def roles_given_by(role: Role) -> list[Role]:
    """The roles that a member of `role` may give and take: owners all, admins those below them."""
    if role == Role.OWNER:
        return ROLE_ORDER
    return [Role.ANNOTATOR, Role.VIEWER] if role == Role.ADMIN else []


class Membership(models.Model):
    """A person's role in a project. No membership: the project does not exist for them."""

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="memberships"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.ANNOTATOR)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "user"], name="one_role_per_project")
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.role} · {self.project_id}"


class InvitationQuerySet(models.QuerySet["Invitation"]):
    def open(self) -> Self:
        """Those that still let someone in."""
        return self.filter(
            revoked_at=None, expires_at__gt=timezone.now(), used__lt=models.F("max_uses")
        )


class Invitation(models.Model):
    """A link that lets people into a project. Only a hash of its secret is kept."""

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="invitations"
    )
    role = models.CharField(max_length=10, choices=Role.choices)
    # set: for this address only
    email = models.EmailField(blank=True)
    prefix = models.CharField(max_length=8)
    # SHA-256 in hexadecimal, as of API tokens
    digest = models.CharField(max_length=64, unique=True)
    max_uses = models.PositiveSmallIntegerField(default=1)
    used = models.PositiveSmallIntegerField(default=0)
    expires_at = models.DateTimeField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(used__lte=models.F("max_uses")), name="invitation_uses"
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["project", "-created_at"], name="invitation_list")
        ]

    def __str__(self) -> str:
        return f"{self.role} ({self.prefix}…)"

    @property
    def state(self) -> str:
        """'open', or why it lets nobody in; 'asleep' while its maker is deactivated."""
        if self.revoked_at is not None:
            return "revoked"
        if self.used >= self.max_uses:
            return "used up"
        if self.expires_at <= timezone.now():
            return "expired"
        return "open" if self.created_by and self.created_by.is_active else "asleep"


class Scope(models.TextChoices):
    """What a token may be used for."""

    CHAT = "chat", "Chat: ask versions and read their answers"
    FEEDBACK = "feedback", "Feedback: vote on those answers"
    DATA_READ = "data:read", "Read: all prompts, completions, votes and examples"
    DATA_WRITE = "data:write", "Write: add prompts, completions and votes"


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def valid(self) -> Self:
        return self.filter(revoked_at=None)


class ApiToken(models.Model):
    """Lets a program into one project. Only a hash of the secret is kept (accounts/tokens.py)."""

    project = models.ForeignKey("feedback.Project", on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=60)
    # the secret's first characters, so that people can tell tokens apart
    prefix = models.CharField(max_length=20)
    # SHA-256 in hexadecimal: the secret is 256 random bits, a slow hash would add nothing
    digest = models.CharField(max_length=64, unique=True)
    scopes: Any = models.JSONField(default=list)
    # casts the votes that name nobody
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="token"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True)
    # the minute of its latest request, and how many there were in it
    last_used_at = models.DateTimeField(null=True)
    used_in_minute = models.PositiveIntegerField(default=0)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["project", "-created_at"], name="token_list")]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @property
    def scope_labels(self) -> list[str]:
        """The scopes in one word each, for lists."""
        return [scope.label.split(":")[0] for scope in Scope if scope in self.scopes]


class ApiPerson(models.Model):
    """One of a product's own users, known by the name that the product's code gives them.

    The user behind it makes them a person like any other: one vote a completion, caps, erasure.
    """

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="api_people"
    )
    name = models.CharField(max_length=200)
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_person"
    )

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "name"], name="one_api_person_per_name")
        ]

    def __str__(self) -> str:
        return self.name


class ApiReceipt(models.Model):
    """What a request with an Idempotency-Key was answered; sent again, it gets the same.

    Written in the transaction of what the request did, so there is one if and only if it was done.
    """

    token = models.ForeignKey(ApiToken, on_delete=models.CASCADE, related_name="receipts")
    key = models.CharField(max_length=200)
    # SHA-256 of method, path and body
    asked = models.CharField(max_length=64)
    answer = models.TextField()
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["token", "key"], name="one_receipt_per_key")
        ]

    def __str__(self) -> str:
        return self.key


class AuditEvent(models.Model):
    """Who did what to which thing, and why. Written with the action, never changed."""

    project = models.ForeignKey("feedback.Project", on_delete=models.CASCADE, related_name="+")
    # empty: the schedule did it, or somebody who was erased
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    action = models.CharField(max_length=40)
    target = models.CharField(max_length=200)
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["project", "-created_at"])]

    def __str__(self) -> str:
        return f"{self.action} {self.target}"
