package zz
import ("testing";"context";"net/http";"os";"strings"
"github.com/getkin/kin-openapi/openapi3"
"github.com/getkin/kin-openapi/openapi3filter"
"github.com/getkin/kin-openapi/routers/gorillamux")
func Test(t *testing.T){
 doc,err:=openapi3.NewLoader().LoadFromFile("../web/openapi.yaml"); if err!=nil{t.Fatal(err)}
 if err:=doc.Validate(context.Background(), openapi3.EnableSchemaFormatValidation(), openapi3.EnableExamplesValidation(), openapi3.EnableMultiError()); err!=nil{t.Fatal(err)}
 rt,err:=gorillamux.NewRouter(doc); if err!=nil{t.Fatal(err)}
 yaml,_:=os.ReadFile("../web/openapi.yaml")
 J,P,H:="application/json","application/problem+json","text/html; charset=utf-8"
 tok:=`{"access_token":"a.b.c","refresh_token":"r","expiration":"2026-01-02 03:04:05","token_type":"bearer","expires_in":3600}`
 prob:=func(st string)string{return `{"type":"about:blank","title":"T","status":`+st+`,"detail":"d"}`}
 inv:=`{"type":"about:blank","title":"T","status":422,"detail":"d","errors":[{"field":"a","message":"b"}]}`
 usr:=func(ll string)string{return `{"id":"0c3d8a52-7d0e-4a63-8a0b-5f6f6a1d2b3c","email":"a@b","first_name":"","last_name":"","last_login":`+ll+`,"created_at":"2025-09-14T08:00:00Z"}`}
 A:="/api/v1/auth/"
 ns:="Cache-Control: no-store"
 for _,c:=range []struct{m,p string;st int;ct,body,h string;ok bool}{
 {"POST",A+"login",200,J,tok,ns,true},
 {"POST",A+"login",200,J,tok,"",false},
 {"POST",A+"login",200,J,strings.Replace(tok,"bearer","mac",1),ns,false},
 {"POST",A+"login",200,J,strings.Replace(tok,"3600","3600.5",1),ns,false},
 {"POST",A+"login",200,J,strings.Replace(tok,"01-02 ","01-02T",1),ns,false},
 {"POST",A+"login",200,J,strings.Replace(tok,"{",`{"x":1,`,1),ns,false},
 {"POST",A+"login",401,P,prob("401"),ns,true},
 {"POST",A+"login",401,P,inv,ns,false},
 {"POST",A+"login",401,J,prob("401"),ns,false},
 {"POST",A+"login",404,P,prob("404"),ns,false},
 {"POST",A+"login",422,P,inv,ns,true},
 {"POST",A+"login",422,P,prob("422"),ns,false},
 {"POST",A+"login",429,P,prob("429"),ns+"|Retry-After: 3",true},
 {"POST",A+"login",429,P,prob("429"),ns,false},
 {"POST",A+"login",503,P,prob("503"),ns+"|Retry-After: soon",false},
 {"POST",A+"logout",200,J,"{}","",true},
 {"POST",A+"logout",200,J,`{"a":1}`,"",false},
 {"POST",A+"logout",200,J,`null`,"",false},
 {"POST",A+"logout",401,P,prob("401"),ns+"|WWW-Authenticate: Bearer",true},
 {"POST",A+"logout",401,P,prob("401"),ns,false},
 {"POST",A+"logout",429,P,prob("429"),ns+"|Retry-After: 3",false},
 {"POST",A+"access_token",200,J,tok,ns,true},
 {"POST",A+"recover",200,J,"{}\n","",true},
 {"POST",A+"reset",403,P,prob("403"),ns,true},
 {"GET",A+"user",200,J,usr("null"),ns,true},
 {"GET",A+"user",200,J,usr(`"2026-03-01T17:30:00Z"`),ns,true},
 {"GET",A+"user",200,J,usr(`"2026-03-01T17:30:00+01:00"`),ns,false},
 {"GET",A+"user",200,J,usr(`"yesterdayZ"`),ns,false},
 {"GET",A+"user",200,J,strings.Replace(usr("null"),"0c3d8a52","zz",1),ns,false},
 {"GET","/.well-known/jwks.json",200,J,`{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b","kid":"c","use":"sig","alg":"ES256"}]}`,"Cache-Control: public, max-age=300",true},
 {"GET","/.well-known/jwks.json",200,J,`{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b","kid":"c","use":"sig","alg":"ES256","d":"x"}]}`,"Cache-Control: public, max-age=300",false},
 {"GET","/healthz",200,J,`{"status":"ok"}`,"",true},
 {"GET","/healthz",200,J,`{"status":"ready"}`,"",false},
 {"GET","/readyz",503,P,prob("503"),ns+"|Retry-After: 2",true},
 {"GET","/openapi.yaml",200,"application/yaml",string(yaml),"",true},
 {"GET","/recover",200,H,"<p>",ns,true},
 {"GET","/recover",200,J,"{}",ns,false},
 {"POST","/reset",404,H,"<p>",ns,true},
 {"GET","/reset?uuid=x",404,H,"<p>",ns,true},
 {"GET","/reset",500,P,prob("500"),ns,true},
 {"GET","/reset",503,H,"<p>",ns,false},
 }{
  rq,_:=http.NewRequest(c.m,"http://localhost"+c.p,nil)
  route,pp,err:=rt.FindRoute(rq); if err!=nil{t.Fatal(c,err)}
  h:=http.Header{"Content-Type":{c.ct}}
  for _,l:=range strings.Split(c.h,"|"){ if k,v,ok:=strings.Cut(l,": ");ok{h.Set(k,v)}}
  in:=&openapi3filter.ResponseValidationInput{RequestValidationInput:&openapi3filter.RequestValidationInput{Request:rq,PathParams:pp,Route:route},Status:c.st,Header:h,Options:&openapi3filter.Options{IncludeResponseStatus:true,MultiError:true}}
  in.SetBodyBytes([]byte(c.body))
  err=openapi3filter.ValidateResponse(context.Background(),in)
  if (err==nil)!=c.ok {t.Errorf("%s %s %d %.60s %s: want ok=%t, got %v",c.m,c.p,c.st,c.body,c.h,c.ok,err)}
 }
}
