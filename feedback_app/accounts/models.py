"""Users, memberships and roles, API tokens and the audit trail."""

import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.db.models import Q
from django.utils import timezone


class UserManager(BaseUserManager["User"]):
    """Creates users, identified by e-mail address without regard to case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_superuser=True, **fields)

    def create_service(self, *, name: str) -> "User":
        """Create a user without password or sign-in, for votes that arrive through an API."""
        address = f"{uuid.uuid4().hex}@service.invalid"  # RFC 2606: no mail is ever delivered
        return self.create_user(address, None, name=name[:100], is_active=False)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=(username or "").lower())


class User(AbstractBaseUser, PermissionsMixin):
    """One person. Deactivated users are signed out and cannot sign in."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=100, blank=True)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # the newest notification, and when the list was last opened: the bar shows the difference
    # without a query of its own
    notified_at = models.DateTimeField(null=True, editable=False)
    notifications_seen_at = models.DateTimeField(null=True, editable=False)
    # when the last e-mail digest was sent
    digest_at = models.DateTimeField(null=True, editable=False)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = UserManager()

    def __str__(self) -> str:
        return self.name or self.email

    @property
    def has_news(self) -> bool:
        """Whether there are notifications since the list was last opened."""
        if self.notified_at is None:
            return False
        return self.notifications_seen_at is None or self.notifications_seen_at < self.notified_at

    @property
    def initials(self) -> str:
        """One or two letters for the avatar."""
        words = (self.name or self.email).replace(".", " ").split()
        return "".join(word[0] for word in words[:2]).upper()


class Role(models.TextChoices):
    """What a member may do; each role includes the ones below it."""

    OWNER = "owner", "Owner"
    ADMIN = "admin", "Admin"
    ANNOTATOR = "annotator", "Annotator"
    VIEWER = "viewer", "Viewer"


#: From most to least permissions.
ROLE_ORDER = [Role.OWNER, Role.ADMIN, Role.ANNOTATOR, Role.VIEWER]


def roles_from(least: Role) -> list[Role]:
    """Return the roles that include `least`."""
    return ROLE_ORDER[: ROLE_ORDER.index(least) + 1]


def roles_given_by(role: Role) -> list[Role]:
    """Return the roles that `role` may assign: owners all, admins those below them."""
    if role == Role.OWNER:
        return ROLE_ORDER
    return [Role.ANNOTATOR, Role.VIEWER] if role == Role.ADMIN else []


class Membership(models.Model):
    """A user's role in a project; to users without one the project does not exist."""

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
        """Invitations that can still be used."""
        return self.filter(
            revoked_at=None, expires_at__gt=timezone.now(), used__lt=models.F("max_uses")
        )

    def admitting(self) -> Self:
        """Open ones, without those of deactivated people and of archived projects."""
        return self.open().filter(created_by__is_active=True, project__archived_at=None)


class Invitation(models.Model):
    """A link with which people join a project. Only a hash of its secret is stored."""

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="invitations"
    )
    role = models.CharField(max_length=10, choices=Role.choices)
    # if set, only for this address
    email = models.EmailField(blank=True)
    prefix = models.CharField(max_length=8)
    # SHA-256 in hexadecimal, as for API tokens
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
        """'open', or why it cannot be used; 'asleep' while its creator is deactivated."""
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
    def unrevoked(self) -> Self:
        return self.filter(revoked_at=None)

    def valid(self) -> Self:
        """Neither revoked nor expired."""
        ahead = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
        return self.unrevoked().filter(ahead)


class ApiToken(models.Model):
    """A program's access to one project. Only a hash of the secret is stored."""

    project = models.ForeignKey("feedback.Project", on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=60)
    # the secret's first characters, to identify the token in lists
    prefix = models.CharField(max_length=20)
    # SHA-256 in hexadecimal; a slow hash would add nothing to a secret of 256 random bits
    digest = models.CharField(max_length=64, unique=True)
    scopes: Any = models.JSONField(default=list)
    # the user of votes without a `user`
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="token"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    # None: valid until it is revoked
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    # the minute of its latest request, and the number of requests in it
    last_used_at = models.DateTimeField(null=True)
    used_in_minute = models.PositiveIntegerField(default=0)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["project", "-created_at"], name="token_list")]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def scope_labels(self) -> list[str]:
        """The scopes as one word each."""
        return [scope.label.split(":")[0] for scope in Scope if scope in self.scopes]


class ApiPerson(models.Model):
    """A user of the product that calls the API, known by the name that it sends.

    The linked User makes one vote per completion, caps and erasure apply as for everyone else.
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
    """The response to a request with an Idempotency-Key, repeated if it is sent again.

    It is written in the transaction of the request, so it exists if and only if that committed.
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


#: Characters of what an event of the audit trail is about.
TARGET_LENGTH = 200


class AuditEvent(models.Model):
    """Who did what, when, from where, and why. Written with the action, never changed.

    A worker links the events into a chain of hashes (accounts/audit_chain.py): an event that was
    changed or removed later is found.
    """

    project = models.ForeignKey("feedback.Project", on_delete=models.CASCADE, related_name="+")
    # empty: the schedule, or a user who was erased
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    action = models.CharField(max_length=40)
    target = models.CharField(max_length=TARGET_LENGTH)
    reason = models.TextField(blank=True)
    # of the client; empty for workers and commands
    address = models.CharField(max_length=45, blank=True, default="", db_default="")
    created_at = models.DateTimeField(auto_now_add=True)
    # the actor's number, which stays in the chain when the account is deleted
    actor_number = models.BigIntegerField(null=True, editable=False)
    # whether something was removed when a person was erased; `digest` is that of the whole event
    redacted = models.BooleanField(default=False, db_default=False, editable=False)
    # place in the chain; empty until a worker has linked it
    number = models.PositiveBigIntegerField(null=True, editable=False)
    digest = models.CharField(max_length=64, blank=True, default="", db_default="", editable=False)
    chain = models.CharField(max_length=64, blank=True, default="", db_default="", editable=False)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "-created_at"]),
            models.Index(fields=["id"], condition=Q(number=None), name="audit_unlinked"),
            models.Index(fields=["-number"], name="audit_linked"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target}"
